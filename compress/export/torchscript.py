"""`.ts`: a traced TorchScript archive; runs in libtorch without Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress.core.deploying import Precision
from compress.core.errors import ExportError, first_line
from compress.export.half import Half
from compress.export.parity import answering
from compress.export.target import ABOUT, TARGETS, Job, Loaded, Target


def write(job: Job) -> tuple[str, ...]:
    """Write `job.path` as a frozen TorchScript archive, what it says about itself in the extra file `ABOUT`.

    Freezing makes the weights constants and folds batch norms into convolutions. A trace has no notion of a free batch:
    whether it kept the batch free shows when the file is run on other sizes.
    """
    with torch.no_grad():
        # strict=False lets a network return a dict or a list; the trace is checked after reloading, not here.
        traced = torch.jit.trace(_asked(job), job.example, check_trace=False, strict=False)
        ready = torch.jit.freeze(traced.eval())
        if not job.optimize:
            _save(ready, job)
            return ()
        try:
            _save(torch.jit.optimize_for_inference(ready), job)
            torch.jit.load(str(job.path))
        except RuntimeError as error:
            _save(torch.jit.freeze(traced.eval()), job)
            why = f"PyTorch cannot read back what it makes of it here ({first_line(error)})"
            return (f"not optimised for inference: {why}; call torch.jit.optimize_for_inference after loading it",)
    return ()


def _save(script: Any, job: Job) -> None:
    torch.jit.save(script, str(job.path), _extra_files={ABOUT: json.dumps(dict(job.about), sort_keys=True)})


def _asked(job: Job) -> nn.Module:
    """Return the network in the precision that was asked for."""
    if job.precision is Precision.INT8:
        raise ExportError("TorchScript is written in float32 or float16, not int8", fix="write int8 as .onnx")
    return Half(job.module) if job.precision is Precision.FLOAT16 else job.module


def load(path: Path) -> Loaded:
    """Reload an archive as a function from inputs to flattened CPU outputs."""
    return answering(torch.jit.load(str(path)))


TARGETS.add(".ts", Target(name="TorchScript", write=write, load=load))
