"""What can be known to be wrong before anything heavy is imported: answered at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from compress.core.errors import CheckpointError, UsageError
from compress.core.files import require_writable

N = TypeVar("N", int, float)

PICTURES = (".svg", ".png", ".pdf")
EXPORT_SUFFIXES = (".onnx", ".ts", ".pt2")


def numbers(option: str, text: str | None, kind: Callable[[str], N], example: str) -> tuple[N, ...] | None:
    """Read "1,3,224,224" as numbers; None stays None, UsageError names `option` where it is not that.

    >>> numbers("--input-shape", "1,3,32,32", int, "1,3,224,224")
    (1, 3, 32, 32)
    """
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option} must be numbers with commas between, got {text!r}", fix=f"for example {example}"
        ) from None


def input_shape(text: str | None) -> tuple[int, ...] | None:
    """Read --input-shape; every size is at least 1."""
    shape = numbers("--input-shape", text, int, "1,3,224,224")
    if shape is not None and min(shape) < 1:
        raise UsageError(f"--input-shape must hold sizes of at least 1, got {text!r}", fix="for example 1,3,224,224")
    return shape


def normalisation(mean: str | None, std: str | None) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Read --mean and --std; they come together, with one number per channel, and std is positive."""
    means, stds = numbers("--mean", mean, float, "0.485,0.456,0.406"), numbers("--std", std, float, "0.229,0.224,0.225")
    if (means is None) != (stds is None):
        raise UsageError("--mean and --std belong together", fix="give both, one number per channel, or neither")
    if means and stds and len(means) != len(stds):
        raise UsageError(
            f"--mean has {len(means)} numbers but --std has {len(stds)}", fix="one number per channel in both"
        )
    if stds and not all(value > 0 for value in stds):
        raise UsageError(
            f"--std must be positive, got {std}", fix="for values in [0, 1], for example 0.229,0.224,0.225"
        )
    return means, stds


def round_to(text: str) -> int | None:
    """Read --round-to: "auto" is None."""
    if text == "auto":
        return None
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise UsageError(
        f"--round-to must be auto or a whole number of at least 1, got {text!r}", fix="1 turns rounding off"
    )


def ratio(text: str) -> tuple[str, float]:
    """Read 'layer3.*=0.3'.

    >>> ratio("layer3.*=0.3")
    ('layer3.*', 0.3)
    """
    glob, _, number = text.rpartition("=")
    try:
        fraction = float(number)
    except ValueError:
        fraction = -1.0
    if not glob or not 0 <= fraction < 1:
        raise UsageError(
            f"--ratio must be GLOB=FRACTION with a fraction in [0, 1), got {text!r}", fix="--ratio 'layer3.*=0.3'"
        )
    return glob, fraction


def bound(given: Mapping[str, Any]) -> None:
    """Read --max-drop, --min-agreement and --time-budget, and require the images they are measured on."""
    from compress.core.bounds import MaxDrop, bound_of, seconds_of
    from compress.core.budgets import KINDS

    asked_for = bound_of(given["max_drop"], given["min_agreement"])
    seconds = seconds_of(given["time_budget"])
    if asked_for is None and seconds is not None:
        raise UsageError("--time-budget ends a search, and none is asked for", fix="add --max-drop 1.0")
    if isinstance(asked_for, MaxDrop) and given["data"] is None:
        raise UsageError("--max-drop is measured on labelled images, and there are none", fix="add --data")
    if asked_for is not None and given["data"] is None and given["calibration"] is None:
        raise UsageError(f"--{asked_for.option} is measured on images, and there are none", fix="add --calibration")
    other = next((name for name in KINDS if name != "macs" and given.get(name) is not None), None)
    other = "plan" if given["plan_in"] is not None else other
    if asked_for is not None and other is not None:
        raise UsageError(
            f"--{asked_for.option} finds its own budget, and excludes --{other}", fix="it combines with --macs"
        )


def target(given: Mapping[str, Any], plan: Path | None) -> None:
    """Require exactly one kind of budget, one that can be read, or --plan, a file."""
    from compress.core.budgets import KINDS, DropDead, asked

    budget = asked(given, otherwise=None if plan is None else "--plan")
    if budget is None and plan is None and not any((given.get("ratio"), given.get("drop_blocks"), _bounded(given))):
        names = [f"--{name.replace('_', '-')}" for name in KINDS]
        raise UsageError(
            f"how much shall leave? None of {', '.join(names)} and --plan is given",
            fix="--percent 0.5 removes half of the prunable channels, --macs 0.5 leaves half of the MACs, "
            "--plan plan.json replays a cut",
        )
    if isinstance(budget, DropDead) and given.get("calibration") is None:
        raise UsageError(
            "--drop-dead looks at what the network does, and there are no inputs",
            fix="add --calibration with a few hundred images",
        )
    if plan is not None and not plan.is_file():
        raise UsageError(f"there is no plan file {plan}", fix="--plan-out writes one")


def _bounded(given: Mapping[str, Any]) -> bool:
    return given["max_drop"] is not None or given["min_agreement"] is not None


def checkpoint(path: Path) -> None:
    """Require a file with something in it."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, not a checkpoint", fix="name the file inside it")
    if not path.exists():
        raise CheckpointError(f"there is no file {path}", fix="check the path")
    if path.is_file() and path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty", fix="save or download the checkpoint again")


def outputs(out: Sequence[Path], others: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """Require known suffixes, places that can be written, no file twice, and no input overwritten."""
    for path in out:
        if path.suffix not in EXPORT_SUFFIXES:
            raise UsageError(
                f"--out {path}: no format has the suffix {path.suffix!r}",
                fix=f"use one of {', '.join(EXPORT_SUFFIXES)}",
            )
    written = [*out, *(path for path in others if path is not None)]
    protected = {path.resolve(): path for path in inputs if path is not None}
    seen: set[Path] = set()
    for path in written:
        if path.resolve() in protected:
            raise UsageError(f"{path} would overwrite an input of this command", fix="choose another name")
        if path.resolve() in seen:
            raise UsageError(f"{path} is named twice as an output", fix="give every output its own name")
        seen.add(path.resolve())
        require_writable(path)


def training(given: Mapping[str, Any]) -> None:
    """Refuse options of a training where none is asked for, and rates that cannot be meant."""
    names = {"train": "--train", "lr": "--lr", "batch_size": "--batch-size", "optimizer": "--optimizer"}
    flags = {"distill_features": "--distill-features", "channels_last": "--channels-last", "resume": "--resume"}
    said = [option for name, option in (names | flags).items() if given[name] not in {None, False}]
    if said and not given["finetune"] and not given["distill"]:
        raise UsageError(f"{said[0]} is about a training, and none is asked for", fix="add --finetune 3 or --distill 3")
    if given["distill_features"] and not given["distill"]:
        raise UsageError("--distill-features belongs to --distill", fix="add --distill 3")
    if given["lr"] is not None and not 0 < given["lr"] < float("inf"):
        raise UsageError(f"--lr must be positive, got {given['lr']:g}", fix="for example 0.02")


def deployment(out: Sequence[Path], given: Mapping[str, Any]) -> None:
    """Require a file that each option of the deployment is for, and something to calibrate int8 on."""
    suffixes = {path.suffix.lower() for path in out}
    wanted = {"opset": {".onnx"}, "optimize": {".ts"}, "fp16": {".onnx", ".ts"}, "int8": {".onnx"}}
    for name, fitting in wanted.items():
        if given[name] and not suffixes & fitting:
            raise UsageError(
                f"--{name} is for {' and '.join(sorted(fitting))} files, and --out names none",
                fix=f"add --out small{min(fitting)}",
            )
    if given["dynamic_size"] and not out:
        raise UsageError("--dynamic-size is for files, and --out names none", fix="add --out small.onnx")
    if given["fp16"] and given["int8"] and ".ts" not in suffixes:
        raise UsageError("--fp16 and --int8 exclude each other for a .onnx file", fix="keep one of them")
    if given["int8"] and given["calibration"] is None and given["data"] is None:
        raise UsageError("int8 needs images to calibrate on", fix="add --calibration with a few hundred images")


def picture(path: Path | None) -> None:
    """Require a suffix that can be drawn."""
    if path is not None and path.suffix.lower() not in PICTURES:
        raise UsageError(f"{path}: no picture has the suffix {path.suffix!r}", fix=f"use {', '.join(PICTURES)}")


def images(data: str | None, calibration: str | None) -> None:
    """Refuse one .npz file or factory as both --data and --calibration; other data sets have a training part."""
    if data is None or calibration is None or not (data.endswith(".npz") or ".py:" in data):
        return
    if Path(data).resolve() == Path(calibration).resolve():
        raise UsageError(
            f"--data and --calibration are the same images, {data}: accuracy on what recovery has seen says little",
            fix="give --calibration other images, best from the training set",
        )
