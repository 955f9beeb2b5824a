"""The machine that a figure was measured on, as far as it changes the figure."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import torch

CPUINFO = Path("/proc/cpuinfo")

# What a report calls an extension, and the names the kernel has for it.
EXTENSIONS: Mapping[str, frozenset[str]] = {
    "avx2": frozenset({"avx2"}),
    "avx_vnni": frozenset({"avx_vnni"}),
    "avx512f": frozenset({"avx512f"}),
    "avx512_vnni": frozenset({"avx512_vnni"}),
    "avx512_bf16": frozenset({"avx512_bf16"}),
    "amx": frozenset({"amx_tile"}),
    "neon": frozenset({"asimd", "neon"}),
    "sve": frozenset({"sve"}),
}

# What torch's own dispatcher says, where the kernel cannot be asked.
CAPABILITIES: Mapping[str, tuple[str, ...]] = {"AVX2": ("avx2",), "AVX512": ("avx2", "avx512f")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Hardware and versions behind a measurement.

    `cores` are those this process may use, `threads` those PyTorch uses, `load` the mean number of running processes
    over the last minute at the time of asking, None where the system does not tell.
    """

    cpu: str
    isa: tuple[str, ...]
    cores: int
    threads: int
    load: float | None
    os: str
    python: str
    torch: str
    onnxruntime: str
    gpu: str | None

    def __str__(self) -> str:
        """Describe the machine in one line."""
        load = "" if self.load is None else f", load {self.load:.2f}"
        gpu = "" if self.gpu is None else f", {self.gpu}"
        return (
            f"{self.cpu} ({', '.join(self.isa) or 'no vector extension known'}), {self.cores} cores, "
            f"{self.threads} threads{load}{gpu}, {self.os}, Python {self.python}, torch {self.torch}, "
            f"onnxruntime {self.onnxruntime}"
        )


def this_machine() -> Machine:
    """Describe the machine that this process runs on, now."""
    cpuinfo = _cpuinfo()
    return Machine(
        cpu=_cpu_name(cpuinfo),
        isa=_extensions(cpuinfo, torch.backends.cpu.get_cpu_capability()),
        cores=_cores(),
        threads=torch.get_num_threads(),
        load=_load(),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=torch.__version__,
        onnxruntime=onnxruntime.__version__,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )


def kernel_block() -> int:
    """Return the number of channels that onnxruntime's CPU convolutions compute at once: 16 with AVX-512, else 8.

    A width that is no multiple of it is padded, or leaves the blocked kernels altogether.
    """
    return 16 if "avx512f" in _extensions(_cpuinfo(), torch.backends.cpu.get_cpu_capability()) else 8


def _cpuinfo() -> Mapping[str, str]:
    """Return the kernel's description of the first processor, empty where it gives none."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    first = text.strip().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _extensions(cpuinfo: Mapping[str, str], capability: str) -> tuple[str, ...]:
    """Return the known extensions, from the kernel's flags, or from torch's capability where there are no flags."""
    flags = set((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())
    if flags:
        return tuple(name for name, kernel in EXTENSIONS.items() if kernel & flags)
    if platform.machine().lower() in {"arm64", "aarch64"}:
        return ("neon",)
    return CAPABILITIES.get(capability, ())


def _cpu_name(cpuinfo: Mapping[str, str]) -> str:
    return cpuinfo.get("model name") or platform.processor() or platform.machine() or "unknown"


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None
