"""The recovery after a cut, one step after the other, and what each of them won."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.core.clock import Clock
from compress.core.errors import DataError
from compress.core.progress import Progress
from compress.core.types import Accuracy, StageResult
from compress.evaluation.data import Data
from compress.evaluation.metrics import agreement, evaluate
from compress.graph.modules import tensors_of
from compress.graph.trace import Trace
from compress.importance import Evidence
from compress.recovery.absorb import absorb
from compress.recovery.closeness import distance
from compress.recovery.recalibrate import recalibrate
from compress.surgery.planned import Cut

CALIBRATION_INPUTS = 1024
SET_ASIDE = 256  # inputs that recovery never sees, at most a fifth: on them the steps are compared
MEMORY = 2**28  # floating-point numbers that one pass may hold
ALIVE = 6  # tensors of the largest size that are alive at once, over both networks
BATCH = 256
EVIDENCE_BATCH = 32


@dataclass(frozen=True, slots=True)
class Calibration:
    """Inputs for recovery, in batches, and inputs that it never sees (one batch; may be None)."""

    batches: tuple[Tensor, ...]
    aside: Tensor | None

    @property
    def inputs(self) -> int:
        """How many inputs recovery sees."""
        return sum(len(batch) for batch in self.batches)


def batch_size(trace: Trace) -> int:
    """How many inputs a pass can hold: `MEMORY` over what one input needs, between 8 and `BATCH`."""
    first = trace.shapes[trace.inputs[0]] if trace.inputs else ()
    own = max(first[0] if first else 1, 1)
    largest = max((math.prod(shape) for shape in trace.shapes), default=1) / own
    return max(8, min(BATCH, int(MEMORY / (largest * ALIVE))))


def learned(inputs: Tensor, fixed: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers of the inputs that are learned from, in random order, and of those set aside."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))  # they may come class by class
    aside = min(len(inputs) // 5, SET_ASIDE)
    if fixed is not None:
        aside = fixed if len(inputs) >= 3 * fixed else 0
    return order[: len(inputs) - aside], order[len(inputs) - aside :]


def evidence_of(
    module: nn.Module, inputs: Tensor, labels: Tensor | None, *, fixed: int | None = None, seed: int = 0
) -> Evidence:
    """What importance may look at: the inputs that recovery learns from as well."""
    used, _ = learned(inputs, fixed, seed)
    size = fixed or EVIDENCE_BATCH
    whole = used[: len(used) // size * size] if fixed is not None else used
    of = None if labels is None else labels[whole].split(size)
    return Evidence(module, tuple(inputs[whole].split(size)), of, fixed=fixed is not None)


def calibration_of(inputs: Tensor, size: int, *, fixed: int | None = None, seed: int = 0) -> Calibration:
    """Set some inputs aside and split the rest into batches of `size`; of `fixed` where no other size will do."""
    used, aside = learned(inputs, fixed, seed)
    batches = inputs[used].split(fixed or size)
    if len(batches) > 1 and len(batches[-1]) < (fixed or 8):
        batches = batches[:-1]
    return Calibration(tuple(batches), inputs[aside] if len(aside) else None)


def recover(
    original: nn.Module,
    cut: Cut,
    inputs: Tensor,
    told: Progress,
    clock: Clock,
    *,
    data: Data | None = None,
    fixed: int | None = None,
    seed: int = 0,
    shortened: bool = False,
    wanted: nn.Module | None = None,
) -> tuple[StageResult, ...]:
    """Absorb, then recalibrate, in place; return the raw cut and each step with what it reached.

    `inputs` are batch first; `fixed` is the only batch size that the network takes. `shortened` tells that the cut
    network lacks layers of the original. Outputs are compared with those of `wanted`, where that is not the original
    (a step of several cuts what others have cut before).
    Accuracy is on `data` where that has labels; agreement and distance are on inputs set aside. Raises DataError where
    there are too few inputs.
    """
    size = batch_size(cut.analysis.traces[0]) if fixed is None else fixed
    calibration = calibration_of(inputs, size, fixed=fixed, seed=seed)
    if calibration.inputs < 2:
        raise DataError("recovery needs at least two inputs for calibration", fix="give more, or --no-recover")
    module, wanted = cut.delivered.module, wanted or original
    stages: list[StageResult] = []

    def reached(name: str, seconds: float, note: str, *, kept: bool = True) -> None:
        """Note what the network reaches after this step; a step taken back leaves it where it was."""
        with clock.stage("evaluate"):
            accuracy = accuracy_of(module, name, data, told, rows=fixed) if kept else stages[-1].accuracy
            same, apart = likeness(wanted, module, calibration.aside) if kept else (None, None)
        stages.append(
            StageResult(
                name=name, accuracy=accuracy, agreement=same, distance=apart, seconds=seconds, note=note, kept=kept
            )
        )

    reached("cut", 0.0, "")
    with told.stage("absorb", len(calibration.batches)) as advance, clock.stage("absorb"):
        seconds, note, kept = _absorbed(
            original, cut, calibration, (stages[-1].distance, wanted), advance, shortened=shortened, seed=seed
        )
    reached("absorbed", seconds, note, kept=kept)
    with told.stage("recalibrate", len(calibration.batches)) as advance, clock.stage("recalibrate"):
        norms = recalibrate(wanted, module, calibration.batches, advance=advance)
    if norms.norms:
        change = f"{norms.before:.3g} -> {norms.after:.3g}"
        why = "kept" if norms.kept else "taken back: the old statistics are nearer"
        note = f"{norms.norms} batch norms; distance on held-out inputs {change}, {why}"
        reached("recalibrated", norms.seconds, note, kept=norms.kept)
    return tuple(stages)


def _absorbed(
    original: nn.Module,
    cut: Cut,
    calibration: Calibration,
    before: tuple[float | None, nn.Module],
    advance: Callable[[int, int], None],
    *,
    shortened: bool,
    seed: int,
) -> tuple[float, str, bool]:
    """Absorb, or leave the network as it was where that takes it farther away; seconds, what was done, whether kept.

    `before` is how far it is from which network.
    """
    module, path = cut.delivered.module, cut.chosen.plan.submodule
    raw = {name: tensor.clone() for name, tensor in tensors_of(module).items()}
    how: dict[str, Any] = {"submodule": path, "shortened": shortened, "seed": seed, "advance": advance}
    done = absorb(original, module, cut.analysis, cut.dead, calibration.batches, **how)
    if _worse(*before, module, calibration.aside):
        for name, tensor in tensors_of(module).items():
            tensor.data.copy_(raw[name])
        return done.seconds, "taken back: the raw cut is nearer", False
    note = f"{len(done.layers)} layers took up what they lost, from {done.inputs} inputs"
    if done.left_out:
        note += f"; not {', '.join(done.left_out)}, which read too many inputs for a regression"
    return done.seconds, note, True


def _worse(before: float | None, original: nn.Module, module: nn.Module, aside: Tensor | None) -> bool:
    if before is None or aside is None:
        return False
    return not distance(original, module, [aside]) <= before  # NaN is worse


def accuracy_of(
    module: nn.Module, name: str, data: Data | None, told: Progress, *, rows: int | None = None
) -> Accuracy | None:
    """Return the accuracy on `data`, None where it has no labels; `rows` is the only batch size, where there is one."""
    if data is None or not data.labelled:
        return None
    with told.stage(f"accuracy, {name}", len(data)) as advance:
        return evaluate(module, data, rows=rows, progress=advance)


def likeness(original: nn.Module, module: nn.Module, aside: Tensor | None) -> tuple[float | None, float | None]:
    """Return agreement with the original and distance from it on `aside`, None where they cannot be told."""
    if aside is None:
        return None, None
    apart = distance(original, module, [aside])
    try:
        return agreement(module, original, aside), apart
    except (DataError, IndexError):  # several outputs, or none with classes
        return None, apart


def final(stages: Sequence[StageResult]) -> StageResult | None:
    """The last step that was kept."""
    return next((stage for stage in reversed(stages) if stage.kept), None)
