"""How fast this machine can be at best, measured: multiplying, and moving memory.

Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009: an operator of f FLOPs that moves b bytes takes at least
max(f / peak, b / bandwidth) seconds; where f / b lies below peak / bandwidth, memory is the bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch

SIDE = 1024  # of the square matrices whose product is timed
COPIED = 64 * 2**20  # bytes of the buffer that is copied
TRIES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """FLOPs a second in onnxruntime's float32 matrix product, and bytes a second read and written by a copy."""

    flops: float
    bandwidth: float
    threads: int

    @property
    def ridge(self) -> float:
        """FLOPs for each byte above which arithmetic is the bound."""
        return self.flops / self.bandwidth

    def least(self, macs: float, traffic: float) -> float:
        """Return the least seconds that so much work takes on this machine.

        >>> Roof(flops=100.0, bandwidth=10.0, threads=1).least(macs=50, traffic=20)
        2.0
        """
        return max(2 * macs / self.flops, traffic / self.bandwidth)


def measured_roof(threads: int, clock: Callable[[], float] = time.perf_counter) -> Roof:
    """Measure this machine with so many threads: the best of several tries, as the roof is what is possible."""
    return Roof(flops=_flops(threads, clock), bandwidth=_bandwidth(threads, clock), threads=threads)


def _flops(threads: int, clock: Callable[[], float]) -> float:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(_product(), options, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    feed = {"x": generator.standard_normal((SIDE, SIDE)).astype(np.float32)}
    return 2 * SIDE**3 / _best(lambda: session.run(None, feed), clock)


def _product() -> bytes:
    """Return a model that multiplies a square matrix with a constant one, as layers multiply with their weights."""
    kind = onnx.TensorProto.FLOAT
    weight = np.random.default_rng(1).standard_normal((SIDE, SIDE)).astype(np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, kind, [SIDE, SIDE]) for name in ("x", "y"))
    graph = onnx.helper.make_graph([node], "product", [x], [y], [onnx.numpy_helper.from_array(weight, "w")])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    return bytes(proto.SerializeToString())


def _bandwidth(threads: int, clock: Callable[[], float]) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        source, target = torch.ones(COPIED // 4), torch.zeros(COPIED // 4)
        return 2 * COPIED / _best(lambda: target.copy_(source), clock)
    finally:
        torch.set_num_threads(before)


def _best(run: Callable[[], object], clock: Callable[[], float]) -> float:
    run()
    best = float("inf")
    for _ in range(TRIES):
        start = clock()
        run()
        best = min(best, clock() - start)
    return best
