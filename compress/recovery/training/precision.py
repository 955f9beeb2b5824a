"""In what a network computes while it trains: autocast, where the processor has arithmetic for it."""

from __future__ import annotations

import torch

from compress.core.errors import UsageError
from compress.recovery.training.recipe import Precision


def resolved(asked: Precision, device: torch.device) -> torch.dtype:
    """Return float32, bfloat16 or float16 for `device`. Raises UsageError for float16 on a CPU.

    `auto` asks what the processor says of itself: bfloat16 on a CPU only where AVX-512 BF16 or AMX multiply it in
    hardware, for emulated bfloat16 is slower than float32.
    """
    match asked:
        case Precision.FLOAT32:
            return torch.float32
        case Precision.BFLOAT16:
            return torch.bfloat16
        case Precision.FLOAT16:
            if device.type == "cpu":
                raise UsageError("--precision float16 needs a GPU", fix="--precision bfloat16, or auto")
            return torch.float16
        case Precision.AUTO:
            if device.type == "cpu":
                return torch.bfloat16 if multiplies_bfloat16() else torch.float32
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def multiplies_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 in hardware."""
    known = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in known if hasattr(torch.cpu, name))
