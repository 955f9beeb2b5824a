"""Peak resident memory of a cut over what the process held with the model loaded."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Any

import torch
from torch import nn

STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"


def memory(name: str, what: str) -> dict[str, Any]:
    """Return bytes: of the model, and of the peak of one forward pass, a cut, or a cut with its check (Linux only)."""
    from spine_child import cut, make

    # What the first call of anything costs (imports, tables) is no part of a cut.
    tiny = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3)).eval()
    cut(tiny, torch.randn(2, 3, 8, 8), verify=True)
    module, x = make(name)
    size = sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    PEAK.write_text(RESET_PEAK)
    start = _bytes("VmRSS")
    if what == "forward":
        with torch.no_grad():
            result: Any = module(x)
    else:
        result = cut(module, x, verify=what == "cut and verify")
    peak = _bytes("VmHWM")
    del result
    return {"model": size, "peak": peak - start, "batch": len(x)}


def _bytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
