"""Cut many networks from one without a copy of it for each: what a cut leaves alone is the original's own tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from compress.core.types import Network
from compress.graph.analyse import Analysis
from compress.graph.modules import tensors_of
from compress.surgery.cut import dead_of, kept_indices, plan_of
from compress.surgery.deliver import deliver


def cut_sharing(network: Network, analysis: Analysis, channels: np.ndarray) -> tuple[nn.Module, frozenset[str]]:
    """Return the network without these channels (numbers as in `Group.labels`), and the names of what differs.

    The result is not checked against the masked original. Raises as `deliver` does.
    """
    if not len(channels):
        return network.module, frozenset()
    dead = dead_of(analysis, channels)
    plan = plan_of(analysis, channels.tolist())
    how: dict[str, Any] = {"verify": False, "dynamic_batch": network.dynamic_batch}
    module = deliver(network.module, network.example, analysis, plan, dead, **how).module
    changed = frozenset(kept_indices(analysis, dead))
    originals, here = tensors_of(network.module), tensors_of(module)
    same = {id(t): originals[n] for n, t in here.items() if n in originals and n not in changed}
    for part in module.modules():
        tables: list[dict[str, Any]] = [part._parameters, part._buffers]
        for table in tables:
            table.update((key, same[id(t)]) for key, t in list(table.items()) if t is not None and id(t) in same)
    return module, changed


def own_bytes(module: nn.Module, changed: frozenset[str]) -> int:
    """Memory of what is not shared, in bytes."""
    return sum(t.numel() * t.element_size() for n, t in tensors_of(module).items() if n in changed)
