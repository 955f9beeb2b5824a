"""How long a file takes to load, and how much memory its network needs, seen in a process that does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
SECONDS_ALLOWED = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """`load` seconds from the file to a network that can run; bytes that loading and running added at their peak.

    `peak` is resident memory beyond that of the imported libraries, `device_peak` what PyTorch held on CUDA; each is
    None where it cannot be seen.
    """

    load: float
    peak: int | None
    device_peak: int | None = None


def in_fresh_process(module: str, arguments: Sequence[str]) -> Fresh | str:
    """Run `python -m module arguments`, which prints a Fresh as JSON; return it, or why there is none."""
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS_ALLOWED)
    except subprocess.TimeoutExpired:
        return f"it took longer than {SECONDS_ALLOWED} s"
    try:
        return Fresh(**json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, TypeError, IndexError):
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"the process ended with code {done.returncode}"


def resident() -> int:
    """Return the bytes of memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def forget_peak() -> bool:
    """Let the kernel count the peak from now on; False where it does not offer that."""
    try:
        RESET.write_text("5")
    except OSError:
        return False
    return True


def peak() -> int | None:
    """Return the largest number of bytes held since `forget_peak`, None where the kernel does not tell."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return found[0] if found else None
