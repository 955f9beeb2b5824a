"""Do two files compute the same? Any two of the formats that are read or written here, each in its own runtime."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.checkpoint.inputs import checked, example
from compress.checkpoint.sniff import Format, sniff
from compress.core.errors import CompressError, ExportError, UsageError, first_line
from compress.core.progress import Progress, Silent
from compress.core.types import Accuracy, Network, Preprocessing
from compress.evaluation.calibration import calibration_set
from compress.evaluation.data import Data
from compress.evaluation.judge import open_for
from compress.evaluation.metrics import evaluate
from compress.export.answers import ROWS, Answers, same_class
from compress.export.api import load_as
from compress.export.onnx_save import about_of
from compress.export.parity import TOLERANCE, answer_of, batched_inputs, like, relative_error, same_form
from compress.export.quiet import evaluating, quiet
from compress.export.target import ABOUT, TARGETS, Loaded
from compress.graph.modules import fresh
from compress.measure.machine import this_machine
from compress.pipeline.opening import opened, read
from compress.pipeline.options import Reading
from compress.report.assemble import versions
from compress.report.comparison import Comparison, Side

COMPARED_INPUTS = 256
RANDOM_INPUTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions(Reading):
    """Everything that `compress verify` can be told; see its --help for what each means."""

    first: Path
    second: Path
    tolerance: float = TOLERANCE
    agreement: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file that answers: its format, what it computes, and what it says about its inputs.

    `example` holds inputs of the right shapes, None where the file does not tell them; `rows` is the only batch size
    that it takes, None for any.
    """

    name: str
    format: str
    run: Loaded
    example: tuple[Tensor, ...] | None = None
    rows: int | None = None
    preprocessing: Preprocessing | None = None


def run_verify(options: VerifyOptions, progress: Progress | None = None) -> Comparison:
    """Run both files on the same inputs and compare. Raises CompressError subclasses where one cannot be used."""
    told = progress or Silent()
    with told.stage("load"):
        files = [opened_file(path, options) for path in (options.first, options.second)]
    shown = next((file.example for file in files if file.example is not None), None)
    if shown is None:
        raise UsageError("neither file tells the shape of its input", fix="add --input-shape, for example 1,3,224,224")
    inputs, data, on = _inputs(files, shown, options)
    with told.stage("compare"):
        one, two = (_answers(file, inputs) for file in files)
    if not same_form(one, two):
        shapes = " and ".join(str([tuple(t.shape[1:]) for t in answer]) for answer in (one, two))
        raise ExportError(f"the files return different shapes for one input: {shapes}")
    accuracies: list[Accuracy | None] = [None, None]
    if data is not None and data.labelled:
        for number, file in enumerate(files):
            with told.stage(f"accuracy, {file.name}", len(data)) as advance:
                accuracies[number] = evaluate(Answers(file.run, file.rows), data, progress=advance)
    sides = [Side(f.name, f.format, reached) for f, reached in zip(files, accuracies, strict=True)]
    return Comparison(
        first=sides[0],
        second=sides[1],
        max_relative_error=relative_error(one, two),
        agreement=same_class(two[0], one[0]),
        inputs=len(inputs[0]),
        on=on,
        tolerance=options.tolerance,
        least_agreement=options.agreement,
        command=shlex.join(["compress", *sys.argv[1:]]),
        versions=versions(),
        machine=asdict(this_machine()),
    )


def module_file(module: nn.Module, inputs: tuple[Tensor, ...], name: str) -> File:
    """A module that is in memory already, as a file that answers."""

    def run(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.no_grad(), evaluating(module):
            return answer_of(module(*fresh(given)))

    return File(name=name, format="module", run=run, example=inputs)


def opened_file(path: Path, options: VerifyOptions) -> File:
    """Read a file by what it is: ONNX by its suffix, archives with a graph of their own, and checkpoints."""
    if path.suffix.lower() == ".onnx":
        return _onnx(path, options)
    layout = sniff(path)
    if layout is Format.TORCHSCRIPT:
        return _archive(path, ".ts", _script_about, options)
    if layout is Format.EXPORTED:
        return _archive(path, ".pt2", _program_about, options)
    network, _ = opened(read(path, options))
    file = module_file(network.module, network.example, path.name)
    rows = None if network.dynamic_batch else len(network.example[0])
    return replace(file, format=network.kind, rows=rows, preprocessing=network.preprocessing)


def _onnx(path: Path, options: VerifyOptions) -> File:
    import onnx

    if not path.is_file():
        raise UsageError(f"no file {path}", fix="check the path")
    run = load_as(TARGETS[".onnx"], path)
    about = about_of(path)
    entries = onnx.load(path, load_external_data=False).graph.input
    shapes = [[dim.dim_value or None for dim in entry.type.tensor_type.shape.dim] for entry in entries]
    types = [onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type) for entry in entries]
    rows = shapes[0][0] if shapes and shapes[0] else None
    inputs: tuple[Tensor, ...] | None
    if options.input_shape is not None:
        inputs = example(checked(options.input_shape))
    elif any(size is None for shape in shapes for size in shape[1:]):
        inputs = _shaped(about)
    else:
        sizes = [[size or 2 for size in shape] for shape in shapes]
        inputs = tuple(torch.from_numpy(_zeros(size, kind)) for size, kind in zip(sizes, types, strict=True))
    return File(name=path.name, format="ONNX", run=run, example=inputs, rows=rows, preprocessing=_preprocessing(about))


def _zeros(shape: list[int], kind: object) -> object:
    import numpy as np

    return np.zeros(shape, dtype=kind)  # type: ignore[call-overload]


def _archive(path: Path, suffix: str, read: Callable[[Path], str], options: VerifyOptions) -> File:
    """Read a TorchScript archive or an exported program, with what it says about itself."""
    run = load_as(TARGETS[suffix], path)
    with quiet():
        text = read(path)
    about = json.loads(text) if text else {}
    inputs = _shaped(about) if options.input_shape is None else example(checked(options.input_shape))
    return File(
        name=path.name, format=TARGETS[suffix].name, run=run, example=inputs, preprocessing=_preprocessing(about)
    )


def _script_about(path: Path) -> str:
    found = {ABOUT: ""}
    torch.jit.load(str(path), _extra_files=found)
    text: str | bytes = found[ABOUT]
    return text.decode() if isinstance(text, bytes) else text


def _program_about(path: Path) -> str:
    found = {ABOUT: ""}
    torch.export.load(path, extra_files=found)
    return found[ABOUT]


def _shaped(about: dict[str, str]) -> tuple[Tensor, ...] | None:
    shape = about.get("compress.input_shape")
    return None if shape is None else example(tuple(json.loads(shape)))


def _preprocessing(about: dict[str, str]) -> Preprocessing | None:
    text = about.get("compress.preprocessing")
    if text is None:
        return None
    try:
        said = json.loads(text)
        return Preprocessing(**{**said, "mean": tuple(said["mean"]), "std": tuple(said["std"]), "source": "the file"})
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the file's own preprocessing cannot be read: {error}", fix="export it again") from error


def _inputs(
    files: list[File], shown: tuple[Tensor, ...], options: VerifyOptions
) -> tuple[tuple[Tensor, ...], Data | None, str]:
    """Return what both files are run on, the data set behind it, and its name: images where --data gives some."""
    if options.data is None:
        batched = batched_inputs(shown)
        return like(shown, batched, RANDOM_INPUTS), None, f"{RANDOM_INPUTS} random inputs (give --data for real ones)"
    data = data_for(files, shown, options)
    images = calibration_set(shown[0].shape, data, COMPARED_INPUTS, options.seed)[0]
    return (images,), data, f"{len(images)} images of {data.name}"


def data_for(files: list[File], shown: tuple[Tensor, ...], options: VerifyOptions) -> Data:
    """Open the images of --data as files read them whose input is like `shown`; UsageError where they take several."""
    if len(shown) != 1:
        raise UsageError(f"--data is for networks of one input, and these take {len(shown)}", fix="leave --data out")
    known = next((file.preprocessing for file in files if file.preprocessing is not None), None)
    network = Network(name="", module=nn.Identity(), example=shown, kind="", preprocessing=known)
    data = open_for(network, options, None)
    assert data is not None
    return data


def _answers(file: File, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return all outputs of a file for all `inputs`, a few rows at a time; the last ones are filled up if they must."""
    count = len(inputs[0])
    size = file.rows or ROWS
    parts = []
    for start in range(0, count, size):
        part = [x[start : start + size] if len(x) == count else x for x in inputs]
        given = len(part[0])
        filled = [
            torch.cat([x, x[:1].expand(size - given, *x.shape[1:])]) if file.rows and len(x) == given < size else x
            for x in part
        ]
        try:
            answer = file.run(tuple(x.contiguous() for x in filled))
        except CompressError:
            raise
        except Exception as error:
            raise ExportError(
                f"{file.name} does not run on inputs of shape {tuple(filled[0].shape)}: {first_line(error)}",
                fix="give the shape that it reads with --input-shape",
            ) from error
        parts.append([y[:given] for y in answer])
    return tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))


def compare_files(one: File, two: File, inputs: tuple[Tensor, ...], tolerance: float) -> Comparison:
    """Compare two files that answer on `inputs`, batch first; see `Comparison`."""
    first, second = _answers(one, inputs), _answers(two, inputs)
    if not same_form(first, second):
        raise ExportError("the two return different shapes for one input")
    return Comparison(
        first=Side(one.name, one.format, None),
        second=Side(two.name, two.format, None),
        max_relative_error=relative_error(first, second),
        agreement=same_class(second[0], first[0]),
        inputs=len(inputs[0]),
        on=f"{len(inputs[0])} given inputs",
        tolerance=tolerance,
        least_agreement=None,
    )


def verify(
    first: nn.Module | str | Path,
    second: nn.Module | str | Path,
    inputs: Tensor | tuple[Tensor, ...] | None = None,
    *,
    tolerance: float = TOLERANCE,
    **options: object,
) -> Comparison:
    """Compare two networks, each a module or a file of any format: `.same` of the result says whether they agree.

    With `inputs`, one tensor or a tuple of them, batch first, both are run on these. Without, both are files and
    `options` are those of `compress verify`: `data`, `arch`, `input_shape`, `agreement` and so on. `tolerance` bounds
    max |second - first| / max |first|. Raises UsageError where inputs are missing, ExportError where a file cannot be
    run.

    >>> net = torch.nn.Linear(3, 2)
    >>> verify(net, net, torch.randn(4, 3)).same
    True
    """
    if inputs is None:
        if isinstance(first, nn.Module) or isinstance(second, nn.Module):
            raise UsageError("a module in memory is compared on inputs that you give", fix="add inputs=")
        return run_verify(_options(Path(first), Path(second), tolerance, options))
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    files = []
    for number, side in enumerate((first, second)):
        if isinstance(side, nn.Module):
            files.append(module_file(side, given, f"{type(side).__name__} ({('first', 'second')[number]})"))
        else:
            files.append(opened_file(Path(side), _options(Path(side), Path(side), tolerance, options)))
    return compare_files(files[0], files[1], given, tolerance)


def _options(first: Path, second: Path, tolerance: float, options: dict[str, object]) -> VerifyOptions:
    unknown = sorted(set(options) - set(VerifyOptions.__dataclass_fields__))
    if unknown:
        raise UsageError(f"verify has no option {unknown[0]!r}")
    return VerifyOptions(first=first, second=second, tolerance=tolerance, **options)  # type: ignore[arg-type]
