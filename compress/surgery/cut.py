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


def plan_of(analysis: Analysis, channels: Iterable[int]) -> Plan:
    """Return the plan that takes away these channels (numbers as in `Group.labels`)."""
    gone = np.zeros(int(analysis.component.max()) + 1, dtype=bool)
    gone[np.fromiter(channels, dtype=np.int64)] = True
    keep: dict[str, dict[int, tuple[int, ...]]] = {}
    for name, dims in analysis.parameters.items():
        for dim, labels in enumerate(dims):
            if labels is None:
                continue
            dead = gone[analysis.component[labels]]
            if dead.any():
                keep.setdefault(name, {})[dim] = tuple(np.flatnonzero(~dead).tolist())
    return Plan(keep, analysis.attention)


def dead_labels(analysis: Analysis, plan: Plan) -> np.ndarray:
    """Boolean array over labels: True where the plan takes the label away.

    Raises PlanError where the plan names what the network does not have, empties a dimension, or would tear a channel apart.
    """
    gone = np.zeros(int(analysis.component.max()) + 1, dtype=bool)
    for name, dims in plan.keep.items():
        shape = analysis.shapes.get(name)
        if shape is None:
            raise PlanError(f"the plan cuts {name!r}, which the network does not have", fix="use the network it was made for")
        for dim, kept in dims.items():
            size = shape[dim] if 0 <= dim < len(shape) else 0
            if not kept or min(kept) < 0 or max(kept) >= size or list(kept) != sorted(set(kept)):
                raise PlanError(f"the plan keeps {len(kept)} indices of dimension {dim} of {name}, of shape {shape}: not a valid subset")
            labels = analysis.parameters[name][dim]
            if labels is not None:
                gone[np.delete(analysis.component[labels], list(kept))] = True
    if gone[analysis.component[0]]:
        raise PlanError("the plan removes what is tied to the network's inputs or outputs", fix="make the plan for this network")
    made = plan_of(analysis, np.flatnonzero(gone))
    if {n: dict(d) for n, d in made.keep.items()} != {n: dict(d) for n, d in plan.keep.items()}:
        name = next(n for n in {**made.keep, **plan.keep} if dict(made.keep.get(n, {})) != dict(plan.keep.get(n, {})))
        raise PlanError(f"the plan tears channels apart: {name} would not fit what reads or feeds it", fix="make the plan for this network")
    return gone[analysis.component]


def kept_tensors(tensors: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Copies of the tensors with only the kept indices; a tensor that the plan does not name is copied whole."""
    out = {}
    for name, tensor in tensors.items():
        new = tensor.detach()
        for dim, kept in plan.keep.get(name, {}).items():
            new = new.index_select(dim, torch.tensor(kept, device=new.device))
        out[name] = new.clone(memory_format=torch.preserve_format) if new.data_ptr() == tensor.data_ptr() else new
    return out


def sizes_after(analysis: Analysis, dead: np.ndarray, number: int = 0) -> Sizes:
    """Shapes of every value of the `number`th trace once the dead labels have left."""
    return Sizes(analysis.traces[number].shapes, analysis.layouts[number], dead)
