"""Measures: the machine, the latency of two networks against each other, the size of a file."""

from compress.measure.latency import compare
from compress.measure.machine import Machine, kernel_block, this_machine
from compress.measure.runners import Runner, onnxruntime_runner, torch_runner
from compress.measure.size import file_bytes

__all__ = [
    "Machine",
    "Runner",
    "compare",
    "file_bytes",
    "kernel_block",
    "onnxruntime_runner",
    "this_machine",
    "torch_runner",
]
