"""Times of single layers in onnxruntime: many of them side by side in one file, by onnxruntime's own profile.

The profile gives the time of the layer's kernel alone, without the changes of layout that surround a layer which stands
by itself, and which a network has at its ends only.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.core.latency import Layer
from compress.measure.profile import profiled

# One file holds so many layers, and so many bytes of weights and inputs, at most.
TOGETHER = 48
BYTES = 96 * 2**20
PASSES = 10
FLOAT = onnx.TensorProto.FLOAT


def layer_times(
    layers: Sequence[Layer],
    *,
    threads: int,
    provider: str = "CPUExecutionProvider",
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Return the seconds of a pass of every layer, at the given widths, in onnxruntime.

    `progress` is told (layers done, layers planned).
    """
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layers.onnx"
        for part in _parts(layers):
            path.write_bytes(_model(part))
            nodes = profiled(path, batch=1, threads=threads, passes=PASSES, provider=provider)
            seconds = {node.name.removesuffix("_nchwc"): node.seconds for node in nodes}
            times += [seconds[f"y{number}"] for number in range(len(part))]
            if progress is not None:
                progress(len(times), len(layers))
    return times


def _parts(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    part: list[Layer] = []
    size = 0
    for layer in layers:
        own = 4 * (math.prod(_weight(layer)) + math.prod(_input(layer)) + math.prod(_output(layer)))
        if part and (len(part) == TOGETHER or size + own > BYTES):
            yield part
            part, size = [], 0
        part.append(layer)
        size += own
    if part:
        yield part


def _weight(layer: Layer) -> tuple[int, ...]:
    shape, inputs, outputs = layer
    if shape.kind == "linear":
        return inputs, outputs
    return outputs, 1 if shape.kind == "depthwise" else inputs // shape.groups, *shape.kernel


def _input(layer: Layer) -> tuple[int, ...]:
    shape, inputs, _ = layer
    return (shape.rows, inputs) if shape.kind == "linear" else (shape.rows, inputs, *shape.size)


def _output(layer: Layer) -> tuple[int, ...]:
    shape, _, outputs = layer
    if shape.kind == "linear":
        return shape.rows, outputs
    spans = [d * (k - 1) + 1 for d, k in zip(shape.dilation, shape.kernel, strict=True)]
    sides = zip(shape.size, shape.padding, spans, shape.stride, strict=True)
    return (shape.rows, outputs, *((n + 2 * p - span) // s + 1 for n, p, span, s in sides))


def _model(layers: Sequence[Layer]) -> bytes:
    """Return an ONNX file of all layers, each reading the input of its shape and writing its own output."""
    generator = np.random.default_rng(0)
    nodes, weights, outputs = [], [], []
    inputs: dict[tuple[int, ...], Any] = {}
    for number, layer in enumerate(layers):
        size = _input(layer)
        name = "x" + "_".join(map(str, size))
        inputs.setdefault(size, onnx.helper.make_tensor_value_info(name, FLOAT, size))
        values = (0.05 * generator.standard_normal(_weight(layer))).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(values, f"w{number}"))
        outputs.append(onnx.helper.make_tensor_value_info(f"y{number}", FLOAT, _output(layer)))
        nodes.append(_node(layer, [name, f"w{number}"], f"y{number}"))
    graph = onnx.helper.make_graph(nodes, "layers", list(inputs.values()), outputs, weights)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    return bytes(proto.SerializeToString())


def _node(layer: Layer, reads: list[str], makes: str) -> Any:
    shape, inputs, _ = layer
    if shape.kind == "linear":
        return onnx.helper.make_node("MatMul", reads, [makes], name=makes)
    return onnx.helper.make_node(
        "Conv",
        reads,
        [makes],
        name=makes,
        kernel_shape=shape.kernel,
        strides=shape.stride,
        pads=[*shape.padding, *shape.padding],
        dilations=shape.dilation,
        group=inputs if shape.kind == "depthwise" else shape.groups,
    )
