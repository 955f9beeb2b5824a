"""Write the files that were asked for, and measure the original beside the cut network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from compress.core.clock import Clock
from compress.core.deploying import Precision
from compress.core.errors import CompressError
from compress.core.progress import Progress
from compress.core.types import Exported, Network, Speedup
from compress.export import export
from compress.measure.latency import compare
from compress.measure.runners import onnxruntime_runner, torch_runner

CUDA = "CUDAExecutionProvider"


@dataclass(frozen=True, slots=True)
class Measured:
    """The files written; bytes of both networks as ONNX; latencies; what could not be measured, and why."""

    exported: tuple[Exported, ...] = ()
    onnx_bytes: tuple[int, int] | None = None
    speedups: tuple[Speedup, ...] = ()
    notes: tuple[str, ...] = ()


def measure(
    network: Network,
    cut: nn.Module,
    written: Sequence[tuple[Path, Exported]],
    folder: Path,
    told: Progress,
    clock: Clock,
    *,
    threads: int | None,
    batch: int,
    device: str | None = None,
) -> Measured:
    """Time both networks in onnxruntime, on the CPU and on CUDA where it is there, and in PyTorch on CUDA.

    `device` "cpu" leaves CUDA out.
    """
    cuda = torch.cuda.is_available() and device != "cpu"
    notes: list[str] = []
    speedups: list[Speedup] = []
    sizes: tuple[int, int] | None = None
    try:
        with told.stage("export for the benchmark"), clock.stage("export"):
            after = next(
                (
                    Path(made.path)
                    for _, made in written
                    if made.target == "ONNX" and made.precision is Precision.FLOAT32
                ),
                None,
            )
            if after is None:
                after = folder / "after.onnx"
                export(cut, network.example, after, dynamic_batch=network.dynamic_batch)
            before = folder / "before.onnx"
            export(network.module, network.example, before, dynamic_batch=network.dynamic_batch)
        sizes = (before.stat().st_size, after.stat().st_size)
        rows = batch if network.dynamic_batch else int(network.example[0].shape[0])
        for provider in _providers(cuda=cuda):
            with told.stage(f"latency, {provider}", 30) as advance, clock.stage("measure"):
                pair = [onnxruntime_runner(p, batch=rows, threads=threads, provider=provider) for p in (before, after)]
                speedups.append(compare(pair[0], pair[1], progress=advance))
    except CompressError as error:
        notes.append(f"latency in onnxruntime was not measured: {error.what}")
    if cuda:
        with told.stage("latency, CUDA", 30) as advance, clock.stage("measure"):
            one, two = (torch_runner(m, network.example, device="cuda") for m in (network.module, cut))
            speedups.append(compare(one, two, progress=advance))
    return Measured(tuple(made for _, made in written), sizes, tuple(speedups), tuple(notes))


def _providers(*, cuda: bool) -> list[str]:
    import onnxruntime

    there = onnxruntime.get_available_providers()
    return ["CPUExecutionProvider", *([CUDA] if CUDA in there and cuda else [])]
