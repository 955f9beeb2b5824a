"""What every layer of a network costs: the common form of a traced module and of an ONNX file.

Memory traffic counts what an operator reads and writes, once each, as if nothing stayed in a cache: the least that
has to move between an operator and the rest of the network. FLOPs are twice the MACs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One operator for one input (batch size 1).

    `name` is the module path, or the node's name in an ONNX file; `operator` its kind. `shape` is that of the output,
    batch included, `weight` that of what it multiplies with, () for none. `parameters` are elements of its own
    weights, `activations` elements of its output, `traffic` bytes read and written; `weight_bytes` is the part of
    these that does not grow with the batch. `output` and `inputs` name the values, in
    files that have names for them.
    """

    name: str
    operator: str
    macs: int
    parameters: int
    activations: int
    traffic: int
    weight_bytes: int = 0
    shape: tuple[int, ...] = ()
    weight: tuple[int, ...] = ()
    output: str = ""
    inputs: tuple[str, ...] = ()

    @property
    def intensity(self) -> float:
        """FLOPs for each byte moved.

        >>> LayerCost(name="fc", operator="Gemm", macs=8, parameters=8, activations=2, traffic=32).intensity
        0.5
        """
        return 2 * self.macs / self.traffic if self.traffic else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCost:
    """All layers in the order in which they run, and what could not be counted, in words."""

    name: str
    layers: tuple[LayerCost, ...]
    notes: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """MACs of one input."""
        return total(self.layers, "macs")


def total(layers: Iterable[LayerCost], what: str) -> int:
    """Return the sum of one field over the layers."""
    return sum(int(getattr(layer, what)) for layer in layers)
