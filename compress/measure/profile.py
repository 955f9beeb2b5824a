"""onnxruntime's own profile against the file's MACs: how long every layer took, and how fast it was at it."""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from compress.core.errors import UsageError, first_line
from compress.measure.layers import LayerCost, NetworkCost
from compress.measure.onnx_layers import MACS
from compress.measure.runners import feeds

WARM = 3
PASSES = 20
# The quantile of a node's passes that stands for it: a node is short, and one stop of the process more than doubles it.
UNDISTURBED = 0.25
KERNEL = "_kernel_time"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTime:
    """One node that onnxruntime ran, after its own optimisations: its seconds in a pass, and its tensors' shapes."""

    name: str
    operator: str
    seconds: float
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """One node's time beside its work at the profiled batch size; `traffic` in bytes.

    `weight` is the shape of what it multiplies with and `shape` that of the result, as in the file; () where unknown.
    """

    name: str
    operator: str
    seconds: float
    macs: int
    traffic: int
    weight: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()

    @property
    def flops(self) -> float:
        """FLOPs a second that it reached."""
        return 2 * self.macs / self.seconds if self.seconds else 0.0


def profiled(
    path: Path,
    *,
    batch: int,
    threads: int,
    passes: int = PASSES,
    shape: tuple[int, ...] | None = None,
    provider: str = "CPUExecutionProvider",
) -> tuple[NodeTime, ...]:
    """Run the file `passes` times under onnxruntime's profiler, warm, and return the nodes in the order they ran."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:
            raise UsageError(f"onnxruntime cannot load {path}: {first_line(error)}") from error
        feed = feeds(session, batch, path, shape)
        for _ in range(WARM + passes):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return parsed(events, skip=WARM)


def parsed(events: Sequence[Mapping[str, Any]], skip: int = 0) -> tuple[NodeTime, ...]:
    """Read the nodes from a profile; the first `skip` passes are left out. Durations in the file are microseconds."""
    runs = sum(1 for e in events if e.get("cat") == "Session" and e.get("name") == "model_run")
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            found[event["args"].get("node_index", ""), event["name"]].append(event)
    nodes = []
    for (_, name), times in found.items():
        # A node inside a loop runs several times a pass: its time in a pass is their sum.
        often = max(len(times) // runs, 1) if runs else 1
        sums = [sum(e["dur"] for e in times[at : at + often]) for at in range(0, len(times), often)]
        arguments = times[0]["args"]
        nodes.append(
            NodeTime(
                name=name.removesuffix(KERNEL),
                operator=str(arguments["op_name"]),
                seconds=float(np.quantile(sums[skip:] or sums, UNDISTURBED)) / 1e6,
                inputs=_shapes(arguments.get("input_type_shape", ())),
                outputs=_shapes(arguments.get("output_type_shape", ())),
            )
        )
    return tuple(nodes)


def _shapes(entries: Sequence[Mapping[str, Sequence[int]]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(shape) for entry in entries for shape in entry.values())


def with_work(nodes: Sequence[NodeTime], cost: NetworkCost, batch: int) -> tuple[LayerTime, ...]:
    """Give every node the work of the layer of the file that it computes.

    onnxruntime names a node that it has fused or moved to another layout after the value that it makes: from there the
    multiplying layer is found by walking back. Where none is found, the work follows from the shapes in the profile.
    """
    by_name = {layer.name: layer for layer in cost.layers}
    by_output = {layer.output: layer for layer in cost.layers}
    taken: set[str] = set()
    times = []
    for node in nodes:
        layer = by_name.get(node.name)
        if node.operator in MACS and (layer is None or layer.macs == 0):
            value = node.name.removesuffix("_nchwc")
            layer = _behind(value if value in by_output else "", by_output, taken)
        if layer is not None and layer.macs:
            taken.add(layer.output)
        times.append(_of_layer(node, layer, batch) if layer is not None else _of_shapes(node))
    return tuple(times)


def _behind(value: str, by_output: Mapping[str, LayerCost], taken: set[str]) -> LayerCost | None:
    """Return the nearest layer at or before `value` that multiplies and has no node yet."""
    waiting, seen = [value], {""}
    while waiting:
        name = waiting.pop(0)
        layer = by_output.get(name)
        if name in seen or layer is None:
            continue
        seen.add(name)
        if layer.macs and name not in taken:
            return layer
        if not layer.macs:
            waiting += layer.inputs
    return None


def _of_layer(node: NodeTime, layer: LayerCost, batch: int) -> LayerTime:
    return LayerTime(
        name=layer.name,
        operator=node.operator,
        seconds=node.seconds,
        macs=layer.macs * batch,
        traffic=(layer.traffic - layer.weight_bytes) * batch + layer.weight_bytes,
        weight=layer.weight,
        shape=layer.shape,
    )


def _of_shapes(node: NodeTime) -> LayerTime:
    count = MACS.get(node.operator)
    macs = 0
    if count is not None and node.outputs and len(node.inputs) > 1 and all(node.inputs[:2]):
        macs = math.prod(node.outputs[0]) * math.prod(node.inputs[1][1:] if "Conv" in node.operator else [1])
        macs *= 1 if "Conv" in node.operator else node.inputs[0][-1]
    moved = 4 * sum(math.prod(shape) for shape in (*node.inputs, *node.outputs))
    weight = node.inputs[1] if macs else ()
    shape = node.outputs[0] if node.outputs else ()
    return LayerTime(
        name=node.name,
        operator=node.operator,
        seconds=node.seconds,
        macs=macs,
        traffic=moved,
        weight=weight,
        shape=shape,
    )
