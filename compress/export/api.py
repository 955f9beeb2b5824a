"""Write, reload, compare: the one way a network becomes a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

# The targets enter themselves into the table.
from compress.core.errors import CompressError, ExportError, UsageError
from compress.core.files import require_writable, written_whole
from compress.core.types import Exported
from compress.export import exported as _exported  # noqa: F401
from compress.export import onnx as _onnx  # noqa: F401
from compress.export import torchscript as _torchscript  # noqa: F401
from compress.export.parity import TOLERANCE, Question, batched_inputs, like, relative_error, same_form, tensors_of
from compress.export.quiet import evaluating, quiet
from compress.export.target import TARGETS, Job, Loaded, Target

BATCHES = (1, 2, 5)
# torch.export takes a dimension of length 1 for a constant.
TRACED_BATCH = 2


class _WrongResultError(ExportError):
    """The file runs, and computes something else: never a reason to try another way of writing it."""


def export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    dynamic_batch: bool = True,
    opset: int | None = None,
) -> Exported:
    """Write `module` to `path` in the format of its suffix, and prove that the file computes the same.

    `example` holds the positional inputs, batch first. The file is reloaded in its own runtime and run on fixed-seed
    random inputs of the example's shapes and dtypes: batch sizes 1, 2 and 5 where `dynamic_batch`, else the example's.
    Where the batch cannot be kept free, the file is written for the example's batch and a note says so and why.
    `opset` is the ONNX operator set, None for the exporter's own choice; other formats have none. `module` may be in
    any mode, is exported in eval mode, and is left as it was.

    Raises UsageError for an unknown suffix, an opset for a format without one or an unwritable path; ExportError where
    the exporter fails or the results differ by more than 1e-4 relative. No file is left behind then, and an older file
    of that name is left as it was.
    """
    path = Path(path)
    target = _target(path)
    if opset is not None and path.suffix.lower() != ".onnx":
        raise UsageError(f"an opset was asked for, but {path.name} is not ONNX", fix="name a .onnx file")
    require_writable(path)
    batched = batched_inputs(example)
    fixed = tuple(False for _ in example)
    with evaluating(module), quiet():
        why_fixed = ""
        if dynamic_batch and any(batched):
            try:
                questions = [_ask(module, like(example, batched, batch), batch) for batch in BATCHES]
                traced = like(example, batched, TRACED_BATCH)
                return _write(target, module, traced, path, batched, opset, questions, "")
            except _WrongResultError:
                raise
            except ExportError as error:
                why_fixed = error.what
        batch = example[0].shape[0] if any(batched) else 1
        questions = [_ask(module, like(example, fixed, batch), batch)]
        note = f"fixed to batch size {batch}: {why_fixed}" if why_fixed else ""
        return _write(target, module, example, path, fixed, opset, questions, note)


def load(path: Path) -> Loaded:
    """Reload an exported file in its own runtime: a function from input tensors to a tuple of output tensors.

    Raises UsageError for an unknown suffix or a missing file, ExportError where the runtime refuses the file.
    """
    path = Path(path)
    target = _target(path)
    if not path.is_file():
        raise UsageError(f"no file {path}")
    with quiet():
        try:
            return target.load(path)
        except Exception as error:
            raise ExportError(f"{target.name} cannot load {path}: {_first_line(error)}") from error


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
            answer = tensors_of(module(*inputs))
    except Exception as error:
        raise ExportError(f"the network does not run at batch size {batch}: {_first_line(error)}") from error
    if not answer:
        raise ExportError("the network returns no tensor", fix="wrap it so that it returns tensors")
    return Question(batch, inputs, answer)


def _write(
    target: Target,
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    batched: tuple[bool, ...],
    opset: int | None,
    questions: Sequence[Question],
    note: str,
) -> Exported:
    """Write one file whole: it gets its name only after it has answered every question right."""

    def agrees(loaded: Loaded) -> bool:
        return _worst(loaded, questions) <= TOLERANCE

    with written_whole(path) as temporary:
        try:
            job = Job(module=module, example=example, path=temporary, batched=batched, opset=opset, agrees=agrees)
            notes = target.write(job)
            error = _worst(target.load(temporary), questions)
        except CompressError as known:
            raise ExportError(f"cannot write {path} as {target.name}: {known.what}", fix=known.fix) from known
        except Exception as cause:
            raise ExportError(f"cannot write {path} as {target.name}: {_first_line(cause)}") from cause
        if not error <= TOLERANCE:
            raise _WrongResultError(
                f"{path} was not written: as {target.name} the network gives other results, "
                f"relative error {error:.2g} against {TOLERANCE:g} allowed"
            )
        size = temporary.stat().st_size
    return Exported(
        path=str(path),
        target=target.name,
        bytes=size,
        max_relative_error=error,
        batch_sizes=tuple(question.batch for question in questions),
        notes=((note,) if note else ()) + notes,
    )


def _worst(loaded: Loaded, questions: Sequence[Question]) -> float:
    """Return the largest relative error over all questions; ExportError where the file cannot take a batch size."""
    worst = 0.0
    for question in questions:
        try:
            given = loaded(question.inputs)
        except Exception as error:
            raise ExportError(f"the file does not run at batch size {question.batch}: {_first_line(error)}") from error
        if not same_form(question.answer, given):
            raise ExportError(
                f"at batch size {question.batch} the file returns shapes {[tuple(t.shape) for t in given]}, "
                f"the network {[tuple(t.shape) for t in question.answer]}"
            )
        worst = max(worst, relative_error(question.answer, given))
    return worst


def _first_line(error: BaseException) -> str:
    """Return the first line of what set off `error`: exporters wrap a short cause in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
