"""`.pt2`: a `torch.export` program; runs and retrains in PyTorch without the network's source code."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from compress.core.deploying import Precision
from compress.core.errors import ExportError
from compress.export.parity import answering
from compress.export.target import ABOUT, TARGETS, Job, Loaded, Target
from compress.export.trace import exported_program


def write(job: Job) -> tuple[str, ...]:
    """Write `job.path` as a `torch.export` archive, what it says about itself in the extra file `ABOUT`."""
    if job.precision is not Precision.FLOAT32:
        raise ExportError(
            f"a .pt2 file is written in float32, not {job.precision}", fix="write it as .onnx, or float16 as .ts"
        )
    program = exported_program(job.module, job.example, job.batched, job.sized)
    torch.export.save(program, job.path, extra_files={ABOUT: json.dumps(dict(job.about), sort_keys=True)})
    return ()


def load(path: Path) -> Loaded:
    """Reload an archive as a function from inputs to flattened CPU outputs."""
    return answering(torch.export.load(path).module())


TARGETS.add(".pt2", Target(name="torch.export", write=write, load=load))
