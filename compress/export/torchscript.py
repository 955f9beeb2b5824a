"""`.ts`: a traced TorchScript archive; runs in libtorch without Python."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from compress.export.parity import tensors_of
from compress.export.target import TARGETS, Job, Loaded, Target


def write(job: Job) -> tuple[str, ...]:
    """Write `job.path` as a TorchScript archive.

    A trace has no notion of a free batch: whether it kept the batch free shows when the file is run on other sizes.
    """
    with torch.no_grad():
        # strict=False lets a network return a dict or a list; the trace is checked after reloading, not here.
        traced = torch.jit.trace(job.module, job.example, check_trace=False, strict=False)
    torch.jit.save(traced, str(job.path))
    return ()


def load(path: Path) -> Loaded:
    """Reload an archive as a function from inputs to flattened CPU outputs."""
    module = torch.jit.load(str(path))

    def run(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tensors_of(module(*inputs))

    return run


TARGETS.add(".ts", Target(name="TorchScript", write=write, load=load))
