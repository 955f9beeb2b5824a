"""`.pt2`: a `torch.export` program; runs and retrains in PyTorch without the network's source code."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from compress.export.parity import tensors_of
from compress.export.target import TARGETS, Job, Loaded, Target
from compress.export.trace import exported_program


def write(job: Job) -> tuple[str, ...]:
    """Write `job.path` as a `torch.export` archive."""
    program = exported_program(job.module, job.example, job.batched)
    torch.export.save(program, job.path)
    return ()


def load(path: Path) -> Loaded:
    """Reload an archive as a function from inputs to flattened CPU outputs."""
    module = torch.export.load(path).module()

    def run(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tensors_of(module(*inputs))

    return run


TARGETS.add(".pt2", Target(name="torch.export", write=write, load=load))
