"""`compress sweep`: accuracy against the number of channels that leave one layer, or its whole group."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.core.errors import ExactnessError, PlanError, UsageError
from compress.core.progress import Progress, Silent
from compress.core.types import Group
from compress.evaluation.variants import Measured, Policy, Variant, measure
from compress.graph.analyse import Analysis, analyse
from compress.graph.costs import norm_scales
from compress.graph.modules import quiet_module, set_mode, tensors_of
from compress.graph.prefix import first_reading, recorded
from compress.graph.trace import Trace
from compress.importance import CRITERIA, Weights, score
from compress.pipeline.exploring import ExploreOptions, Subject, subject
from compress.report.sweep import Curve, Point, Sweep
from compress.surgery.cut import dead_of
from compress.surgery.outputs import Layer, alone, error_without, group_of, layer_of, without_outputs
from compress.surgery.sharing import cut_sharing
from compress.surgery.verify import TOLERANCE, verify


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """Everything that `compress sweep` can be told: `counts` are the numbers of channels that leave."""

    explore: ExploreOptions
    layer: str
    counts: tuple[int, ...]
    importance: tuple[str, ...]
    group: bool = False


@dataclass(frozen=True, slots=True)
class _Scene:
    """What is cut: the layer alone (`own` set), or a group of channels."""

    about: Subject
    analysis: Analysis
    run: Trace
    group: Group
    own: Layer | None
    path: str

    @property
    def module(self) -> nn.Module:
        return self.about.network.module


def run_sweep(options: SweepOptions, progress: Progress | None = None) -> Sweep:
    """Do what `compress sweep` does, and return every figure. Raises CompressError subclasses."""
    told = progress or Silent()
    for name in options.importance:
        CRITERIA[name]
    about = subject(options.explore, told)
    start = time.perf_counter()
    with told.stage("analyse"):
        scene = _scene(about, options)
    _require_counts(options.counts, scene)
    with told.stage("calibrate"):
        orders = {name: np.argsort(_scores(scene, name), kind="stable") for name in options.importance}
    variants: list[Variant] = []
    shapes: list[tuple[int, ...]] = []
    worst = 0.0
    with told.stage("cut", len(orders) * len(options.counts)) as advance:
        for order in orders.values():
            for count in options.counts:
                module, changed = _cut(scene, order[:count])
                if count == max(options.counts):
                    worst = max(worst, _error(scene, module, order[:count]))
                variants.append(Variant(module, first_reading(scene.run, changed)))
                shapes.append(tuple(_weight(module, options.layer).shape))
                advance(len(variants), len(orders) * len(options.counts))
    prepared = time.perf_counter() - start
    explore = options.explore
    measured = measure(
        about.network.module,
        variants,
        about.data,
        told,
        run=scene.run,
        limit=explore.images,
        fixed=about.fixed,
        seed=explore.seed,
        policy=Policy(),
        name="sweep",
    )
    return _found(scene, options, orders, measured, shapes, worst, prepared)


def _scene(about: Subject, options: SweepOptions) -> _Scene:
    module, example = about.network.module, about.network.example
    analysis = analyse(module, example)
    run = recorded(module, tuple(example))
    group = None
    if options.group:
        group = group_of(analysis, options.layer)
    else:
        layer = layer_of(module, analysis, options.layer)
        try:
            whole = group_of(analysis, options.layer)
        except PlanError:
            whole = None
        if whole is not None and whole.size == layer.size and alone(analysis, whole, options.layer):
            group = whole
    if group is not None:
        return _Scene(about, analysis, run, group, None, options.layer)
    return _Scene(about, analysis, run, layer.group, layer, options.layer)


def _require_counts(counts: Sequence[int], scene: _Scene) -> None:
    size = scene.group.size
    if not counts or min(counts) < 0 or max(counts) >= size:
        raise UsageError(
            f"--k asks for up to {max(counts, default=0)} channels, but {scene.path} has {size}, and one has to stay",
            fix=f"--k 1:{size}:2 removes 1, 3, ... of them",
        )


def _scores(scene: _Scene, name: str) -> np.ndarray:
    """(channels,) float64, larger stays."""
    if scene.own is not None and name in _OWN:
        return _means(scene, _OWN[name])
    needs = CRITERIA[name].needs
    evidence = scene.about.evidence if needs else None
    if scene.own is not None and needs == "inputs" and name != "hessian":
        raise UsageError(
            f"importance {name!r} looks at what reads the channels, and the outputs of {scene.path} alone are added to "
            "others before anything reads them",
            fix="use activation, apoz, l1, l2, bn or taylor; or --group",
        )
    weights = Weights(scene.analysis.tensors, norm_scales(scene.analysis.traces), evidence)
    scores, left = score([scene.group], weights, name)
    if left:
        raise UsageError(f"importance {name!r} cannot judge {scene.path}", fix="use activation or l2")
    return scores[scene.group.name]


class _SeenError(Exception):
    """Ends a run of the network behind the layer that is looked at."""


def _means(scene: _Scene, value: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Mean of `value` of what the layer adds to the stream, by channel, over the inputs of the calibration."""
    assert scene.own is not None
    layer, total, rows = scene.own, np.zeros(scene.own.size), 0

    def note(_: nn.Module, _inputs: Any, y: Tensor) -> None:
        nonlocal rows
        flat = y.movedim(layer.dim, -1).reshape(-1, layer.size)
        total[:] += value(flat).double().sum(0).cpu().numpy()
        rows += len(flat)
        raise _SeenError

    handle = scene.module.get_submodule(layer.last).register_forward_hook(note)
    try:
        for batch in scene.about.evidence.inputs:
            with quiet_module(scene.module), suppress(_SeenError):
                set_mode(scene.module, train=False)
                scene.module(batch.clone())
    finally:
        handle.remove()
    return total / max(rows, 1)


_OWN: Mapping[str, Callable[[Tensor], Tensor]] = {"activation": torch.abs, "apoz": lambda y: y != 0}


def _cut(scene: _Scene, gone: np.ndarray) -> tuple[nn.Module, frozenset[str]]:
    """The network without the channels, and the parameters that differ."""
    stays = np.setdiff1d(np.arange(scene.group.size), gone)
    if scene.own is not None:
        changed = {m.parameter for m in scene.group.members}
        return without_outputs(scene.module, scene.own, stays), frozenset(changed)
    return cut_sharing(scene.about.network, scene.analysis, scene.group.labels[gone])


def _error(scene: _Scene, module: nn.Module, gone: np.ndarray) -> float:
    """How far the cut network is from the masked original, in float64; ExactnessError where that is too far."""
    network = scene.about.network
    stays = np.setdiff1d(np.arange(scene.group.size), gone)
    if scene.own is not None:
        found = error_without(network.module, module, scene.own, stays, network.example)
    else:
        dead = dead_of(scene.analysis, scene.group.labels[gone])
        found = verify(network.module, module, network.example, scene.analysis, dead).max_relative_error
    if not found <= TOLERANCE:
        raise ExactnessError(f"the cut of {scene.path} differs from the masked original by {found:.2g}")
    return found


def _weight(module: nn.Module, path: str) -> Tensor:
    tensors = tensors_of(module)
    name = f"{path}.weight"
    return tensors[name] if name in tensors else tensors[f"{path}.layer.weight"]


def _found(
    scene: _Scene,
    options: SweepOptions,
    orders: Mapping[str, np.ndarray],
    measured: Measured,
    shapes: Sequence[tuple[int, ...]],
    worst: float,
    prepared: float,
) -> Sweep:
    curves = []
    points = iter(zip(shapes, measured.variants, strict=True))
    for name, order in orders.items():
        made = tuple(Point(count, *next(points)) for count in options.counts)
        curves.append(Curve(name, CRITERIA[name].formula, tuple(order.tolist()), made))
    joined = sorted({m.parameter.rpartition(".")[0] for m in scene.group.members if m.produces})
    what = (
        f"outputs of {scene.path} alone: they add nothing to the stream that they joined, which keeps its width"
        if scene.own is not None
        else f"channels of the group of {scene.path}, from {', '.join(joined)} and from all that reads them"
    )
    ranks = any(CRITERIA[name].needs for name in orders)
    return Sweep(
        origin=scene.about.origin("sweep"),
        layer=scene.path,
        what=what,
        mode="outputs" if scene.own is not None else "group",
        channels=scene.group.size,
        original=measured.original,
        curves=tuple(curves),
        images=measured.images,
        asked=measured.asked,
        complete=measured.complete,
        ranked_on=scene.about.seen if ranks else "the weights",
        max_relative_error=worst,
        prepared=prepared,
        costing=measured.costing,
        precision=measured.precision,
        notes=measured.notes,
    )
