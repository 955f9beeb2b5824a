"""Plan <-> labels: which labels a plan takes away, and which indices of every parameter are then kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from compress.core.errors import PlanError
from compress.core.types import Plan
from compress.graph.analyse import Analysis
from compress.graph.rewrite import Sizes

Kept = Mapping[str, Mapping[int, np.ndarray]]
_OWN = "replay a plan on the network that it was made for"


def dead_of(analysis: Analysis, channels: np.ndarray) -> np.ndarray:
    """Boolean array over labels: True where these channels (numbers as in `Group.labels`) own the label."""
    gone = np.zeros(analysis.channels, dtype=bool)
    gone[channels] = True
    return np.asarray(gone[analysis.component])


def kept_indices(analysis: Analysis, dead: np.ndarray) -> Kept:
    """What stays of every parameter dimension that loses something; those that lose the same share one array."""
    slots = analysis.slots
    stay = np.flatnonzero(~dead[: analysis.couplings.parameter_labels])
    first = np.searchsorted(stay, slots.starts)
    past = np.searchsorted(stay, slots.ends)
    cut = past - first < slots.ends - slots.starts
    keep: dict[str, dict[int, np.ndarray]] = {}
    made: dict[bytes, np.ndarray] = {}  # a layer's weight and its norm's tensors lose the same ones
    spans = np.column_stack([np.arange(len(cut)), slots.starts, slots.ends, first, past])[cut].tolist()
    for i, start, end, a, b in spans:
        key = dead[start:end].tobytes()
        if key not in made:
            made[key] = stay[a:b] - start
        name, dim = slots.names[i]
        keep.setdefault(name, {})[dim] = made[key]
    return keep


def plan_of(analysis: Analysis, channels: Iterable[int]) -> Plan:
    """Return the plan that takes away these channels (numbers as in `Group.labels`)."""
    gone = channels if isinstance(channels, np.ndarray) else np.fromiter(channels, dtype=np.int64)
    kept = kept_indices(analysis, dead_of(analysis, gone))
    distinct = {id(k): k for dims in kept.values() for k in dims.values()}
    listed = {key: tuple(k.tolist()) for key, k in distinct.items()}
    return Plan({n: {d: listed[id(k)] for d, k in dims.items()} for n, dims in kept.items()}, analysis.attention)


def dead_labels(analysis: Analysis, plan: Plan) -> np.ndarray:
    """Boolean array over labels: True where the plan takes the label away.

    Raises PlanError where the plan names what the network does not have, empties a dimension, or would tear a channel
    apart.
    """
    gone = np.zeros(analysis.channels, dtype=bool)
    for name, dims in plan.keep.items():
        shape = analysis.shapes.get(name)
        if shape is None:
            raise PlanError(f"the plan cuts {name!r}, which the network does not have", fix=_OWN)
        for dim, kept in dims.items():
            size = shape[dim] if 0 <= dim < len(shape) else 0
            array = np.array(kept, dtype=np.int64)
            if not len(array) or array[0] < 0 or array[-1] >= size or (np.diff(array) <= 0).any():
                what = f"the plan keeps {len(kept)} indices of dimension {dim} of {name}, of shape {shape}"
                raise PlanError(f"{what}: not a rising choice of its indices", fix=_OWN)
            labels = analysis.parameters[name][dim]
            if labels is not None:
                gone[np.delete(analysis.component[labels], array)] = True
    if gone[analysis.component[0]]:
        raise PlanError("the plan removes what is tied to the network's inputs or outputs", fix=_OWN)
    for pin in analysis.couplings.pins:
        if gone[analysis.component[pin.labels]].any():
            raise PlanError(f"the plan removes channels that must stay: {pin}", fix=_OWN)
    dead: np.ndarray = gone[analysis.component]
    made = kept_indices(analysis, dead)
    for name in {**made, **plan.keep}:
        one, two = made.get(name, {}), plan.keep.get(name, {})
        if one.keys() != two.keys() or any(not np.array_equal(one[d], two[d]) for d in one):
            raise PlanError(f"the plan tears channels apart: {name} would not fit what reads or feeds it", fix=_OWN)
    return dead


def kept_tensors(tensors: Mapping[str, Tensor], kept: Kept) -> dict[str, Tensor]:
    """Copies of the tensors with only the kept indices; a tensor that `kept` does not name is copied whole."""
    out = {}
    for name, tensor in tensors.items():
        new = tensor.detach()
        for dim, indices in kept.get(name, {}).items():
            new = new.index_select(dim, torch.from_numpy(indices).to(new.device))
        out[name] = new if name in kept else new.clone(memory_format=torch.preserve_format)
    return out


def sizes_after(analysis: Analysis, dead: np.ndarray, number: int = 0) -> Sizes:
    """Shapes of every value of the `number`th trace once the dead labels have left."""
    return Sizes(analysis.traces[number].shapes, analysis.layouts[number], dead)
