"""Count what a network costs, layer by layer, whatever file it is in."""

from __future__ import annotations

from pathlib import Path

from compress.checkpoint import load as read_checkpoint
from compress.measure.layers import NetworkCost
from compress.measure.onnx_layers import onnx_layers
from compress.measure.torch_layers import torch_layers
from compress.pipeline.opening import opened


def run_flops(
    path: Path,
    *,
    arch: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    trust: bool = False,
) -> NetworkCost:
    """Return the cost of every layer of the network in the file, for one input; see `compress flops --help`."""
    if path.suffix.lower() == ".onnx":
        return onnx_layers(path, input_shape)
    read = read_checkpoint(path, arch=arch, input_shape=input_shape, num_classes=num_classes, trust=trust)
    network, _ = opened(read)
    return torch_layers(network.module, network.example, network.name)
