"""What the cut did to the answers: accuracy before, masked and after where there are labels, agreement otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from compress.core.errors import DataError
from compress.core.progress import Progress
from compress.core.types import Accuracy, Network, Preprocessing, StageResult
from compress.evaluation.calibration import calibration_batch
from compress.evaluation.data import Data, open_data
from compress.evaluation.metrics import agreement, evaluate
from compress.evaluation.raw import Split

AGREEMENT_INPUTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Accuracies, or the fraction of inputs on which original and cut network agree, and on what."""

    original: Accuracy | None = None
    masked: Accuracy | None = None
    pruned: Accuracy | None = None
    agreement: float | None = None
    on: str | None = None
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """Which images, and how they are prepared where the network's own preprocessing is to be overridden."""

    data: str | None = None
    download: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: int | None = None


def prepared(network: Network, options: DataOptions) -> Preprocessing | None:
    """The network's own preprocessing with what the user overrides."""
    given = network.preprocessing
    if options.mean is None and options.std is None and options.resize is None:
        return given
    base = given or Preprocessing()
    return replace(
        base,
        mean=options.mean or base.mean,
        std=options.std or base.std,
        resize=options.resize or base.resize,
        crop=options.resize or base.crop,
        source="--mean, --std, --resize",
    )


def open_for(network: Network, options: DataOptions, classes: int | None, *, split: Split = "test") -> Data | None:
    """Open the data that the options name, as the network reads it; None where they name none."""
    if options.data is None:
        return None
    shape = tuple(network.example[0].shape)
    if len(shape) != 4:
        raise DataError(f"--data reads images, but the network reads inputs of shape {shape}", fix="leave --data out")
    return open_data(
        options.data,
        preprocessing=prepared(network, options),
        channels=shape[1],
        size=(shape[2], shape[3]),
        classes=classes,
        download=options.download,
        split=split,
    )


def open_calibration(network: Network, spec: str | None, options: DataOptions, reported: Data | None) -> Data | None:
    """Open the inputs that recovery learns from: the training part of a data set that has parts; None without `spec`.

    Labels are not needed. `options` are those of the data that accuracy is reported on, `reported` that data.
    Raises DataError where both are the same images.
    """
    found = None if spec is None else open_for(network, replace(options, data=spec), None, split="train")
    if found is None or spec is None:
        return None
    same = options.data is not None and _place(options.data) == _place(spec)
    if same and reported is not None and reported.name == found.name:
        raise DataError(
            f"--calibration and --data are the same images, {found.name}: accuracy on what was seen says little",
            fix="give --calibration other images, best from the training set",
        )
    return found


def _place(spec: str) -> str:
    return str(Path(spec).resolve()) if Path(spec).exists() else spec


def judge(
    network: Network,
    cut: nn.Module,
    mask: nn.Module,
    data: Data | None,
    told: Progress,
    seed: int,
    *,
    reached: StageResult | None = None,
) -> Judged:
    """Judge the cut network beside the original and the masked one; `reached` is what recovery found of it already.

    Raises DataError where data and network do not fit.
    """
    if data is None or not data.labelled:
        if reached is not None and reached.agreement is not None:
            return Judged(agreement=reached.agreement, on="calibration inputs that recovery did not see")
        return _agreement(network, cut, data, seed)

    rows = None if network.dynamic_batch else len(network.example[0])

    def measured(name: str, module: nn.Module) -> Accuracy:
        with told.stage(f"accuracy, {name}", len(data)) as advance:
            return evaluate(module, data, rows=rows, progress=advance)

    original = measured("original", network.module)
    masked = measured("masked", mask)
    pruned = (reached.accuracy if reached is not None else None) or measured("pruned", cut)
    on = f"{data.name} ({pruned.images:,} images)"
    return Judged(
        original=original, masked=masked, pruned=pruned, on=on, preprocessing=data.preprocessing, notes=data.notes
    )


def _agreement(network: Network, cut: nn.Module, data: Data | None, seed: int) -> Judged:
    if len(network.example) != 1 or not network.example[0].is_floating_point():
        return Judged(notes=("several inputs: no agreement measured",))
    shape = tuple(network.example[0].shape)
    count = AGREEMENT_INPUTS if network.dynamic_batch else shape[0]
    batch = calibration_batch(shape, data, count, seed)
    source = f"images of {data.name}" if data is not None else "random noise inputs (give --data for real ones)"
    preprocessing = data.preprocessing if data is not None else None
    try:
        same = agreement(cut, network.module, batch)
    except DataError as error:
        return Judged(notes=(f"no agreement measured: {error.what}",))
    return Judged(agreement=same, on=f"{len(batch)} {source}", preprocessing=preprocessing)
