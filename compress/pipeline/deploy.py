"""The files of --out: written in the precision that was asked for, judged on the data, and measured step by step."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from compress.core.clock import Clock
from compress.core.deploying import Precision
from compress.core.errors import CompressError, DataError
from compress.core.files import written_together
from compress.core.progress import Progress
from compress.core.types import Accuracy, Exported, Network, Plan, Preprocessing, Speedup
from compress.evaluation.calibration import calibration_set
from compress.evaluation.data import Data
from compress.evaluation.judge import Judged, open_calibration
from compress.evaluation.metrics import evaluate
from compress.export import export
from compress.export.answers import answers, outputs, same_class
from compress.export.int8 import compared, fixed_rows, quantize, quantizer, write_checked
from compress.export.int8_auto import keep_float
from compress.measure.before_after import Measured, measure
from compress.measure.latency import compare
from compress.measure.runners import onnxruntime_runner
from compress.pipeline.options import SlimOptions
from compress.report.assemble import versions
from compress.report.types import DeployStep

INT8_INPUTS = 256
# Two fractions of the same images differ by less than this only in rounding.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Deployed:
    """The files in their places, what was measured of original and cut network, and each step down in precision."""

    files: tuple[Exported, ...]
    measured: Measured
    steps: tuple[DeployStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploying:
    """What deploying needs to know of the stages before it: both networks, and how they were judged on what.

    `inputs` are calibration inputs, batch first, None where there are none.
    """

    network: Network
    cut: nn.Module
    plan: Plan
    judged: Judged
    data: Data | None
    inputs: Tensor | None
    options: SlimOptions


def deploy(what: Deploying, told: Progress, clock: Clock) -> Deployed:
    """Write the files of --out, measure before and after, and judge what is not in float32.

    Nothing is in its place before everything is written. Raises ExportError where a file fails its comparison.
    """
    options = what.options
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = [_write(what, out, folder / str(number), told, clock) for number, out in enumerate(options.out)]
        measured = Measured()
        if options.bench:
            same = [] if options.dynamic_size else list(zip(options.out, files, strict=True))
            measured = measure(
                what.network,
                what.cut,
                same,
                folder,
                told,
                clock,
                threads=options.threads,
                batch=options.batch,
                device=options.device,
            )
        steps = _steps(what, files, folder / "before.onnx", measured, told, clock)
        placed = tuple(_placed(out, made) for out, made in zip(options.out, files, strict=True))
    final = {made.path: str(out) for out, made in zip(options.out, files, strict=True)}
    return Deployed(placed, measured, tuple(replace(s, path=final[s.path]) if s.path else s for s in steps))


def int8_inputs(network: Network, options: SlimOptions, data: Data | None) -> Tensor | None:
    """Return inputs to calibrate int8 on where --calibration gives none: from the training part of --data.

    Raises DataError where --data has no training part, or is not given.
    """
    if not options.int8:
        return None
    try:
        found = open_calibration(network, options.data, options, data)
    except DataError as error:
        raise DataError(
            f"int8 needs calibration images, and --data has none of its own: {error.what}",
            fix="add --calibration with a few hundred images",
        ) from error
    if found is None:
        raise DataError("int8 needs calibration images", fix="add --calibration with a few hundred images")
    return calibration_set(network.example[0].shape, found, INT8_INPUTS, options.seed)[0]


def precision_of(out: Path, options: SlimOptions) -> Precision:
    """Return in what a file is written: --int8 is for .onnx, --fp16 for .onnx and .ts; anything else is float32."""
    suffix = out.suffix.lower()
    if options.int8 and suffix == ".onnx":
        return Precision.INT8
    return Precision.FLOAT16 if options.fp16 and suffix in {".onnx", ".ts"} else Precision.FLOAT32


def _write(what: Deploying, out: Path, folder: Path, told: Progress, clock: Clock) -> Exported:
    """Write one file into `folder`, under its own name: files beside it are called after it."""
    folder.mkdir()
    options, precision, suffix = what.options, precision_of(out, what.options), out.suffix.lower()
    whole = folder / "float" / out.name if precision is Precision.INT8 else folder / out.name
    whole.parent.mkdir(exist_ok=True)
    with told.stage(f"export {out.name}"), clock.stage("export"):
        made = export(
            what.cut,
            what.network.example,
            whole,
            dynamic_batch=what.network.dynamic_batch,
            dynamic_size=options.dynamic_size,
            opset=options.opset if suffix == ".onnx" else None,
            precision=Precision.FLOAT32 if precision is Precision.INT8 else precision,
            optimize=options.optimize and suffix == ".ts",
            about=about(what),
        )
    if precision is Precision.INT8:
        return _int8(what, whole, folder / out.name, told, clock)
    lowered = options.fp16 or options.int8
    note = ("in float32: this format has no lower precision",) if lowered and precision is Precision.FLOAT32 else ()
    return replace(made, notes=(*made.notes, *note))


def _int8(what: Deploying, whole: Path, path: Path, told: Progress, clock: Clock) -> Exported:
    """Write `path` as int8 from the float file `whole`; with --int8-auto, with as few float layers as it takes."""
    options, inputs = what.options, what.inputs
    assert inputs is not None
    inputs = inputs[:INT8_INPUTS]
    with told.stage(f"int8 {path.name}") as advance, clock.stage("int8"):
        if not options.int8_auto:
            return quantize(whole, path, inputs, method=options.int8_method)
        rows = fixed_rows(whole, inputs)
        with quantizer(whole, inputs, options.int8_method, rows) as prepared, written_together(path) as temporary:
            score, floor = _score(what, whole, inputs, rows)
            chosen = keep_float(
                prepared, whole, temporary.parent.parent, inputs, score, floor, rows=rows, advance=advance
            )
            said = about(what) | {"compress.int8": f"{options.int8_method}, {len(inputs)} inputs"}
            write_checked(prepared, temporary, chosen.keep_float, said)
            made = compared(whole, temporary, path, inputs, rows, chosen.keep_float, 0.0)
    words = (
        f"{chosen.scored} files tried; the best reaches {100 * chosen.score:.2f} %, at least {100 * floor:.2f} asked"
    )
    return replace(made, notes=(*made.notes, words))


def _score(what: Deploying, whole: Path, inputs: Tensor, rows: int | None) -> tuple[Callable[[Path], float], float]:
    """Return what an int8 file is scored by, and what it has to reach: accuracy, or agreement where there is none."""
    drop = what.options.int8_max_drop / 100 + ROUNDING
    pruned, data = what.judged.pruned, what.data
    if pruned is not None and data is not None and data.labelled:
        return lambda file: evaluate(answers(file, rows), data).top1, pruned.top1 - drop
    reference = outputs(answers(whole, rows), inputs)
    return lambda file: same_class(outputs(answers(file, rows), inputs), reference) or 0.0, 1 - drop


def _steps(
    what: Deploying, files: list[Exported], before: Path, measured: Measured, told: Progress, clock: Clock
) -> tuple[DeployStep, ...]:
    """Original, pruned, and every file of lower precision; none where every file is in float32."""
    lower = [made for made in files if made.precision is not Precision.FLOAT32]
    if not lower:
        return ()
    judged = what.judged
    sizes = measured.onnx_bytes or (None, None)
    speed = next((s for s in measured.speedups if s.device == "cpu"), None)
    steps = [
        DeployStep(name="original", bytes=sizes[0], accuracy=judged.original),
        DeployStep(name="pruned", bytes=sizes[1], accuracy=judged.pruned, agreement=judged.agreement, latency=speed),
    ]
    for made in lower:
        with told.stage(f"accuracy, {made.precision}"), clock.stage("evaluate"):
            accuracy = _accuracy(what, made)
        latency, note = None, ""
        if measured.speedups and made.target == "ONNX":
            with told.stage(f"latency, {made.precision}", 30) as advance, clock.stage("measure"):
                latency, note = _latency(before, Path(made.path), what.options, advance)
        steps.append(
            DeployStep(
                name=f"pruned + {made.precision}",
                precision=made.precision,
                path=made.path,
                bytes=made.bytes,
                accuracy=accuracy,
                agreement=made.agreement,
                latency=latency,
                note=note,
            )
        )
    return tuple(steps)


def _accuracy(what: Deploying, made: Exported) -> Accuracy | None:
    """Accuracy of a file in its own runtime, where there is labelled data."""
    if what.data is None or not what.data.labelled or len(what.network.example) != 1:
        return None
    free = what.network.dynamic_batch and not any(note.startswith("fixed to batch") for note in made.notes)
    return evaluate(answers(Path(made.path), None if free else len(what.network.example[0])), what.data)


def _latency(
    before: Path, after: Path, options: SlimOptions, advance: Callable[[int, int], None]
) -> tuple[Speedup | None, str]:
    """Latency of a file against the original in float32, or why there is none."""
    try:
        one, two = (onnxruntime_runner(path, threads=options.threads, batch=options.batch) for path in (before, after))
        return compare(one, two, progress=advance), ""
    except CompressError as error:
        return None, f"latency not measured: {error.what}"


def about(what: Deploying) -> dict[str, str]:
    """What a file says about itself: where it came from, how it was cut, how good it is, what its inputs are."""
    options, judged = what.options, what.judged
    used = judged.preprocessing or what.network.preprocessing
    names = what.data.class_names if what.data is not None else ()
    reached = judged.pruned
    said: Mapping[str, str | None] = {
        "compress.source": options.checkpoint.name,
        "compress.arch": what.network.arch,
        "compress.plan_sha256": hashlib.sha256(what.plan.to_json().encode()).hexdigest(),
        "compress.versions": json.dumps(versions(), sort_keys=True),
        "compress.accuracy": _accuracy_json(reached, judged.on) if reached is not None else None,
        "compress.preprocessing": preprocessing_json(used) if used is not None else None,
        "compress.input_shape": json.dumps(list(what.network.example[0].shape)),
        "compress.class_names": json.dumps(list(names)) if names else None,
    }
    return {key: value for key, value in said.items() if value is not None}


def _accuracy_json(reached: Accuracy, on: str | None) -> str:
    return json.dumps(
        {
            "of": "the network in float32",
            "top1": reached.top1,
            "top5": reached.top5,
            "images": reached.images,
            "data": on,
        }
    )


def preprocessing_json(used: Preprocessing) -> str:
    """Return mean, std and sizes as JSON, without the place that they were taken from."""
    return json.dumps({key: value for key, value in asdict(used).items() if key != "source"}, sort_keys=True)


def _placed(out: Path, made: Exported) -> Exported:
    """Move a file, and what belongs to it, to where it was asked for."""
    with written_together(out) as temporary:
        for file in (Path(made.path), *map(Path, made.beside)):
            shutil.copyfile(file, temporary.parent / file.name)
    return replace(made, path=str(out), beside=tuple(str(out.parent / Path(name).name) for name in made.beside))
