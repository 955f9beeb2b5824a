"""What can run a network, as a table: each entry makes a runner of a network, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.core.errors import CompressError, UsageError, kind_and_line
from compress.core.measuring import Backend, Device
from compress.core.registry import Registry
from compress.core.types import Network
from compress.export import export
from compress.export.parity import batched_inputs, like
from compress.export.quiet import quiet
from compress.measure.runners import Runner, onnxruntime_runner, torch_runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One file to be measured. `network` is what it holds, None for ONNX, which only onnxruntime runs.

    `shape` is that of the first input, batch first, where it was given. `script` tells that the file is TorchScript.
    """

    label: str
    path: Path
    network: Network | None
    shape: tuple[int, ...] | None = None
    script: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where and how everything in one comparison runs; `device` is cpu or cuda, `threads` those inside an operator."""

    device: Device
    batch: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One network in one setting; files that have to be made on the way go into `folder`."""

    subject: Subject
    setting: Setting
    folder: Path


Make = Callable[[Job], Runner]
BACKENDS: Registry[Make] = Registry("backend")


def runner_of(backend: Backend, job: Job) -> Runner:
    """Return a runner of the network, warm or not; UsageError where this backend cannot run it here, and why."""
    made = BACKENDS[backend]
    with quiet():
        return made(job)


def resolved(device: Device) -> Device:
    """Return where to measure: `auto` is CUDA where PyTorch sees a device. UsageError where CUDA is not there."""
    there = torch.cuda.is_available()
    if device is Device.CUDA and not there:
        raise UsageError("PyTorch sees no CUDA device", fix="use --device cpu")
    if device is Device.AUTO:
        return Device.CUDA if there else Device.CPU
    return device


def onnx_file(job: Job) -> Path:
    """Return the network as an ONNX file: its own, or one that is written into the folder the first time."""
    return job.subject.path if job.subject.network is None else _exported(job, ".onnx")


def _exported(job: Job, suffix: str) -> Path:
    network, path = job.subject.network, job.folder / f"{job.subject.label}{suffix}"
    assert network is not None
    if not path.is_file():
        try:
            export(network.module, network.example, path, dynamic_batch=network.dynamic_batch)
        except CompressError as error:
            raise UsageError(f"{job.subject.label} cannot be had as {suffix}: {error.what}") from error
    return path


def _provider(job: Job, provider: str) -> Runner:
    setting = job.setting
    return onnxruntime_runner(
        onnx_file(job),
        batch=setting.batch,
        threads=setting.threads,
        provider=provider,
        label=job.subject.label,
        shape=job.subject.shape,
    )


@BACKENDS.register(Backend.ONNXRUNTIME)
def _onnxruntime(job: Job) -> Runner:
    """Run with onnxruntime's own CPU or CUDA kernels."""
    return _provider(job, "CUDAExecutionProvider" if job.setting.device is Device.CUDA else "CPUExecutionProvider")


@BACKENDS.register(Backend.OPENVINO)
def _openvino(job: Job) -> Runner:
    """Run with OpenVINO inside onnxruntime, where that build is installed."""
    if job.setting.device is Device.CUDA:
        raise UsageError("OpenVINO does not run on CUDA", fix="use --device cpu")
    return _provider(job, "OpenVINOExecutionProvider")


@BACKENDS.register(Backend.TENSORRT)
def _tensorrt(job: Job) -> Runner:
    """Run with TensorRT inside onnxruntime, where that build is installed."""
    if job.setting.device is not Device.CUDA:
        raise UsageError("TensorRT runs on CUDA only", fix="use --device cuda")
    return _provider(job, "TensorrtExecutionProvider")


@BACKENDS.register(Backend.EAGER)
def _eager(job: Job) -> Runner:
    """Run the module operator by operator in PyTorch."""
    module, inputs = _module(job)
    return torch_runner(module, inputs, device=str(job.setting.device), label=job.subject.label)


@BACKENDS.register(Backend.COMPILE)
def _compile(job: Job) -> Runner:
    """Run what torch.compile makes of the module; it is compiled here, so that no pass pays for it."""
    module, inputs = _module(job)
    compiled: Any = torch.compile(module)
    runner = torch_runner(compiled, inputs, device=str(job.setting.device), label=job.subject.label)
    try:
        runner.run()
    except Exception as error:
        raise UsageError(f"torch.compile cannot compile {job.subject.label}: {kind_and_line(error)}") from error
    return runner


@BACKENDS.register(Backend.TORCHSCRIPT)
def _torchscript(job: Job) -> Runner:
    """Run the archive itself, or the module traced and frozen."""
    _, inputs = _module(job)
    where = torch.device(str(job.setting.device))
    try:
        if job.subject.script:
            ready = torch.jit.load(str(job.subject.path), map_location=where).eval()
        else:
            path = _exported(job, ".ts")
            ready = torch.jit.load(str(path), map_location=where).eval()
        frozen = torch.jit.freeze(ready)
    except CompressError:
        raise
    except Exception as error:
        raise UsageError(f"{job.subject.label} cannot be had as TorchScript: {kind_and_line(error)}") from error
    return torch_runner(frozen, inputs, device=str(where), label=job.subject.label)


def _module(job: Job) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return the module and inputs at the setting's batch size."""
    network = job.subject.network
    if network is None:
        raise UsageError(f"{job.subject.label} is ONNX, which PyTorch does not run", fix="use onnxruntime for it")
    batch = job.setting.batch
    if network.dynamic_batch:
        return network.module, like(network.example, batched_inputs(network.example), batch)
    own = int(network.example[0].shape[0])
    if own != batch:
        raise UsageError(f"{job.subject.label} is for batch size {own}, not {batch}", fix=f"use --batch {own}")
    return network.module, network.example
