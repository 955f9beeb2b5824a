"""Write, reload, compare: the one way a network becomes a file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.core.deploying import Int8Method, Precision
from compress.core.errors import CompressError, ExportError, UsageError, kind_and_line
from compress.core.files import require_writable, written_together
from compress.core.types import Exported
from compress.export import exported as _exported  # noqa: F401 - targets enter themselves into the table
from compress.export import onnx as _onnx  # noqa: F401
from compress.export import torchscript as _torchscript  # noqa: F401
from compress.export.parity import (
    TOLERANCE,
    Question,
    answer_of,
    batched_inputs,
    grown,
    like,
    none_of,
    relative_error,
    same_form,
    sized_inputs,
)
from compress.export.quiet import evaluating, quiet
from compress.export.rounding import only_rounding
from compress.export.target import TARGETS, Job, Loaded, Target
from compress.graph.modules import fresh

BATCHES = (1, 2, 5)
# torch.export takes a dimension of length 1 for a constant.
TRACED_BATCH = 2
# float16 keeps 11 bits of every number, and a deep network rounds many times.
TOLERANCES = {Precision.FLOAT32: TOLERANCE, Precision.FLOAT16: 2e-2}


class _WrongResultError(ExportError):
    """The file runs, and computes something else: never a reason to try another way of writing it."""


def export(
    module: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    path: Path | str,
    *,
    dynamic_batch: bool = True,
    dynamic_size: bool = False,
    opset: int | None = None,
    precision: Precision | str = Precision.FLOAT32,
    optimize: bool = False,
    about: Mapping[str, str] | None = None,
    calibration: Tensor | None = None,
    int8_method: Int8Method | str = Int8Method.MINMAX,
) -> Exported:
    """Write `module` to `path` in the format of its suffix, and prove that the file computes the same.

    `example` is the input, batch first, or a tuple of all positional inputs. The file is reloaded in its own runtime
    and run on fixed-seed random inputs of the example's shapes and dtypes: batch sizes 1, 2 and 5 where
    `dynamic_batch`, else the example's; where `dynamic_size`, inputs (N, C, H, W) also at (H + 32, W + 64).
    Where the batch cannot be kept free, the file is written for the example's batch and a note says so and why.
    `opset` is the ONNX operator set, None for the newest that the installed onnxruntime fully supports; other formats
    have none. `precision` is float32, float16, or, as ONNX, int8: calibrated by `int8_method` on `calibration`, inputs
    of a network of one input, float32 and batch first. `optimize` prepares a TorchScript file for inference on this
    kind of machine. `about` is what the file says about itself. `module` may be in any mode, is
    exported in eval mode, and is left as it was.

    Raises UsageError for an unknown suffix, an opset for a format without one or an unwritable path; ExportError where
    the exporter fails or the results differ by more than 1e-4 relative (2e-2 in float16), unless float64 shows that the
    file is right and only the network's own rounding in float32 is larger than that (a note says so). No file is left
    behind then, and an older file of that name is left as it was.
    """
    path, wanted = Path(path), Precision(precision)
    example = (example,) if isinstance(example, Tensor) else example
    target = _target(path)
    _require_fitting(path, opset, wanted, optimize=optimize)
    require_writable(path)
    _require_tensors(example)
    if wanted is Precision.INT8:
        free = (dynamic_batch, dynamic_size)
        return _int8(module, example, path, calibration, int8_method, opset=opset, free=free, about=about)
    batched = batched_inputs(example)
    sized = sized_inputs(example) if dynamic_size else none_of(example)
    if dynamic_size and not any(sized):
        raise UsageError("no input has a height and a width, so none can be free", fix="leave --dynamic-size out")
    job = Job(
        module=module,
        example=example,
        path=path,
        batched=none_of(example),
        sized=sized,
        opset=opset,
        agrees=lambda _: False,
        precision=wanted,
        optimize=optimize,
        about=about or {},
    )
    with evaluating(module), quiet():
        return _written(target, job, batched if dynamic_batch else none_of(example))


def _int8(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    calibration: Tensor | None,
    method: Int8Method | str,
    *,
    opset: int | None,
    free: tuple[bool, bool],
    about: Mapping[str, str] | None,
) -> Exported:
    """Write int8: quantization starts from a float file, which is written, checked and dropped."""
    from compress.export.int8 import quantize

    if calibration is None:
        raise UsageError("int8 needs calibration inputs", fix="give a few hundred as calibration")
    with tempfile.TemporaryDirectory(prefix="compress-float-") as folder:
        whole = Path(folder) / path.name
        export(module, example, whole, opset=opset, about=about, dynamic_batch=free[0], dynamic_size=free[1])
        return quantize(whole, path, calibration, method=method)


def _written(target: Target, job: Job, batched: tuple[bool, ...]) -> Exported:
    """Write `job` with a free batch where `batched` asks for one and the network has one, else with the example's."""
    module, example = job.module, job.example
    why_fixed = ""
    if any(batched):
        try:
            questions = [_ask(module, like(example, batched, batch), batch) for batch in BATCHES]
            questions += _larger(module, example, batched, job.sized, TRACED_BATCH)
            traced = like(example, batched, TRACED_BATCH)
            return _write(target, replace(job, example=traced, batched=batched), questions, "")
        except _WrongResultError:
            raise
        except ExportError as error:
            why_fixed = error.what
    batch = example[0].shape[0] if any(batched_inputs(example)) else 1
    questions = [_ask(module, like(example, none_of(example), batch), batch)]
    questions += _larger(module, example, none_of(example), job.sized, batch)
    note = f"fixed to batch size {batch}: {why_fixed}" if why_fixed else ""
    return _write(target, job, questions, note)


def _require_fitting(path: Path, opset: int | None, precision: Precision, *, optimize: bool) -> None:
    """Raise UsageError for what the format of `path` does not have."""
    suffix = path.suffix.lower()
    if opset is not None and suffix != ".onnx":
        raise UsageError(f"an opset was asked for, but {path.name} is not ONNX", fix="name a .onnx file")
    if precision is Precision.FLOAT16 and suffix == ".pt2":
        raise UsageError(f"{path.name} cannot be written in float16", fix="name a .onnx or a .ts file")
    if precision is Precision.INT8 and suffix != ".onnx":
        raise UsageError(f"int8 is written as ONNX, not as {path.name}", fix="name a .onnx file")
    if optimize and suffix != ".ts":
        raise UsageError(f"only TorchScript is optimised for inference, not {path.name}", fix="name a .ts file")


def _require_tensors(example: tuple[Any, ...]) -> None:
    """Raise ExportError where an input is no tensor: a file has no other inputs."""
    other = next((item for item in example if not isinstance(item, Tensor)), None)
    if other is not None:
        raise ExportError(
            f"the network takes a {type(other).__name__} as an input, and a file takes tensors",
            fix="export the part of it that takes tensors: a detector's backbone, say",
        )


def _larger(
    module: nn.Module, example: tuple[Tensor, ...], batched: tuple[bool, ...], sized: tuple[bool, ...], batch: int
) -> list[Question]:
    """Ask at a larger height and width too, where these are to be free."""
    return [_ask(module, like(grown(example, sized), batched, batch), batch)] if any(sized) else []


def load(path: Path) -> Loaded:
    """Reload an exported file in its own runtime: a function from input tensors to a tuple of output tensors.

    Raises UsageError for an unknown suffix or a missing file, ExportError where the runtime refuses the file.
    """
    path = Path(path)
    target = _target(path)
    if not path.is_file():
        raise UsageError(f"no file {path}")
    return load_as(target, path)


def load_as(target: Target, path: Path) -> Loaded:
    """Reload a file of any name as `load` does; ExportError where the runtime refuses it."""
    with quiet():
        try:
            return target.load(path)
        except Exception as error:
            raise ExportError(f"{target.name} cannot load {path}: {_cause(error)}") from error


def _target(path: Path) -> Target:
    target = TARGETS.get(path.suffix.lower())
    if target is None:
        raise UsageError(
            f"cannot tell the format of {path.name!r} from its suffix {path.suffix!r}",
            fix=f"use one of {', '.join(TARGETS)}",
        )
    return target


def _ask(module: nn.Module, inputs: tuple[Tensor, ...], batch: int) -> Question:
    try:
        with torch.no_grad():
            answer = answer_of(module(*fresh(inputs)))
    except Exception as error:
        raise ExportError(f"the network does not run at batch size {batch}: {_cause(error)}") from error
    if not answer:
        raise ExportError("the network returns no tensor", fix="wrap it so that it returns tensors")
    return Question(batch, inputs, answer)


def _write(target: Target, job: Job, questions: Sequence[Question], note: str) -> Exported:
    """Write one file whole: it gets its name only after it has answered every question right."""
    path = job.path
    allowed = TOLERANCES[job.precision]

    def agrees(loaded: Loaded) -> bool:
        return _worst(loaded, questions) <= TOLERANCE

    with written_together(path) as temporary:
        try:
            notes = target.write(replace(job, path=temporary, agrees=agrees))
            error = _worst(target.load(temporary), questions)
        except CompressError as known:
            raise ExportError(f"cannot write {path} as {target.name}: {known.what}", fix=known.fix) from known
        except Exception as cause:
            raise ExportError(f"cannot write {path} as {target.name}: {_cause(cause)}") from cause
        if not error <= allowed:
            exact = job.precision is Precision.FLOAT32
            rounding = only_rounding(target, job.module, temporary, questions) if exact else ""
            if not rounding:
                raise _WrongResultError(
                    f"{path} was not written: as {target.name} the network gives other results, "
                    f"relative error {error:.2g} against {allowed:g} allowed"
                )
            notes += (rounding,)
        made = sorted(temporary.parent.iterdir())
        size = sum(file.stat().st_size for file in made)
        beside = tuple(str(path.parent / file.name) for file in made if file != temporary)
    return Exported(
        path=str(path),
        target=target.name,
        bytes=size,
        max_relative_error=error,
        batch_sizes=tuple(dict.fromkeys(question.batch for question in questions)),
        notes=((note,) if note else ()) + notes,
        precision=job.precision,
        sizes=_sizes(job.sized, questions),
        beside=beside,
    )


def _sizes(sized: tuple[bool, ...], questions: Sequence[Question]) -> tuple[tuple[int, int], ...]:
    """Heights and widths that were asked for, of the first input whose are free."""
    if not any(sized):
        return ()
    shapes = [question.inputs[sized.index(True)].shape for question in questions]
    return tuple(dict.fromkeys((int(shape[2]), int(shape[3])) for shape in shapes))


def _worst(loaded: Loaded, questions: Sequence[Question]) -> float:
    """Return the largest relative error over all questions; ExportError where the file cannot take a batch size."""
    worst = 0.0
    for question in questions:
        try:
            given = loaded(question.inputs)
        except Exception as error:
            raise ExportError(f"the file does not run at batch size {question.batch}: {_cause(error)}") from error
        if not same_form(question.answer, given):
            raise ExportError(
                f"at batch size {question.batch} the file returns shapes {[tuple(t.shape) for t in given]}, "
                f"the network {[tuple(t.shape) for t in question.answer]}"
            )
        worst = max(worst, relative_error(question.answer, given))
    return worst


def _cause(error: BaseException) -> str:
    """Return in a line what set off `error`: exporters wrap a short cause in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return kind_and_line(error)
