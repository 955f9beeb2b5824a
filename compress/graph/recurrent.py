"""The state of PyTorch's recurrent layers: what a step leaves is what the next one reads, however many steps were seen.

On a sequence of one step the weight that reads the state reads only its first value, zero, and the trace does not show
that it is the size of what the layer gives.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from compress.graph.couplings import Couplings
from compress.graph.modules import walk

_GATES = {"LSTM": 4, "GRU": 3}


def tie_states(couplings: Couplings, module: nn.Module, labels: Mapping[str, tuple[np.ndarray | None, ...]]) -> None:
    """Tie what every recurrent layer of `module` gives to what it reads of its own state, by its parameters' labels."""
    for path, layer in walk(module):
        if not isinstance(layer, nn.RNNBase):
            continue
        before = f"{path}." if path else ""
        for weights in layer._all_weights:
            for name in weights:
                if name.startswith("weight_hh"):
                    _tie(couplings, layer, labels, f"{before}{name}")


def _tie(
    couplings: Couplings, layer: nn.RNNBase, labels: Mapping[str, tuple[np.ndarray | None, ...]], name: str
) -> None:
    """weight_hh (g H, P) reads the state (P); weight_hr (P, H) makes it where there is one, else P = H."""
    rows, reads = labels.get(name, (None, None))
    if rows is None or reads is None:
        return
    gates = rows.reshape(_GATES.get(layer.mode, 1), -1)
    if layer.proj_size:
        made, hidden = labels.get(name.replace("weight_hh", "weight_hr"), (None, None))
        if made is not None:
            couplings.tie(reads, made)
        if hidden is not None:
            couplings.tie(np.broadcast_to(hidden, gates.shape), gates)
    else:
        couplings.tie(np.broadcast_to(reads, gates.shape), gates)
