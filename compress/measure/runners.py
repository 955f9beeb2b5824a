"""Networks as something that can be run over and over: in onnxruntime, in PyTorch; on the CPU, on CUDA."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from compress.core.errors import UsageError, first_line

SEED = 0
CPU = "CPUExecutionProvider"
# Providers that take and leave tensors in CUDA memory.
ON_CUDA = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"})

# onnxruntime's names for the types that networks take as inputs.
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """One forward pass on fixed inputs, and what it runs on.

    `run` returns when the result is there, unless `seconds` is given: that runs the pass so many times and returns the
    seconds they took together, by the device's own clock.
    """

    label: str
    run: Callable[[], None]
    runtime: str
    device: str
    threads: int
    batch: int
    seconds: Callable[[int], float] | None = None


def onnxruntime_runner(
    path: Path,
    *,
    batch: int | None = None,
    threads: int | None = None,
    provider: str = CPU,
    label: str | None = None,
    shape: tuple[int, ...] | None = None,
) -> Runner:
    """Run the ONNX file at `path` on fixed-seed random inputs of `batch` rows.

    `batch` None means the file's own batch size, 1 where it is free. `threads` is the number of threads inside one
    operator, None for as many as PyTorch uses. `shape`, batch first, fills what the first input leaves free besides it.
    Raises UsageError where the file cannot be loaded, the provider is missing or cannot start, the file is for another
    batch size, or an input has a free dimension besides the first.
    """
    count = torch.get_num_threads() if threads is None else threads
    if count < 1 or (batch is not None and batch < 1):
        raise UsageError(f"threads and batch must be at least 1, got {count} and {batch}")
    session = _session(path, count, provider)
    rows = _batch(session, batch, path)
    feed = feeds(session, rows, path, shape)
    run: Callable[[], None]
    if provider in ON_CUDA:
        # Inputs and outputs stay on the device: copies are not the network's cost.
        binding = _bound(session, feed)

        def run() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
    else:

        def run() -> None:
            session.run(None, feed)

    return Runner(
        label=label or path.name,
        run=run,
        runtime=f"onnxruntime {onnxruntime.__version__}",
        device=provider.removesuffix("ExecutionProvider").lower(),
        threads=count,
        batch=rows,
    )


def torch_runner(
    module: nn.Module, example: tuple[Tensor, ...], *, device: str = "cpu", label: str | None = None
) -> Runner:
    """Run `module` eagerly on `example`, in eval mode, without gradients; `module` itself is left as it is.

    On CUDA the time is taken between two events on the device. Raises UsageError where the device is not there.
    """
    where = _device(device)
    ready = _ready(module, where)
    inputs = tuple(x.detach().to(where) for x in example)

    def run() -> None:
        with torch.inference_mode():
            ready(*inputs)

    return Runner(
        label=label or type(module).__name__,
        run=run,
        runtime=f"torch {torch.__version__}",
        device=str(where),
        threads=torch.get_num_threads(),
        batch=int(example[0].shape[0]) if example and example[0].dim() else 1,
        seconds=_cuda_seconds(run, where) if where.type == "cuda" else None,
    )


def feeds(session: Any, batch: int, path: Path, shape: tuple[int, ...] | None = None) -> dict[str, np.ndarray]:
    """Return fixed-seed random arrays for the inputs of an onnxruntime session; see `onnxruntime_runner`."""
    given = [shape, *[None] * len(session.get_inputs())]
    return {
        entry.name: _drawn(entry, batch, path, own) for entry, own in zip(session.get_inputs(), given, strict=False)
    }


def _session(path: Path, threads: int, provider: str) -> Any:
    if not path.is_file():
        raise UsageError(f"no file {path}")
    known = onnxruntime.get_available_providers()
    if provider not in known:
        raise UsageError(f"this onnxruntime has no {provider}", fix=f"use one of {', '.join(known)}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    # Idle threads of one session would otherwise keep spinning into the other session's turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:
        raise UsageError(
            f"onnxruntime cannot load {path}: {first_line(error)}", fix="give a valid .onnx file"
        ) from error
    if session.get_providers()[0] != provider:
        raise UsageError(f"{provider} cannot start on this machine: onnxruntime would fall back to another one")
    return session


def _free(entry: Any) -> list[int]:
    return [i for i, size in enumerate(entry.shape) if not isinstance(size, int)]


def _batch(session: Any, asked: int | None, path: Path) -> int:
    """Return the batch size to run at; UsageError where the file is for another one than was asked."""
    inputs = session.get_inputs()
    if any(_free(entry) for entry in inputs):
        return asked or 1
    own = int(inputs[0].shape[0]) if inputs and inputs[0].shape else 1
    if asked not in (None, own):
        raise UsageError(f"{path} is for batch size {own}, not {asked}", fix=f"use batch {own}")
    return own


def _drawn(entry: Any, batch: int, path: Path, given: tuple[int, ...] | None) -> np.ndarray:
    """Return a random array for one input of a session; `given` fills its free dimensions besides the first."""
    if entry.type not in DTYPES:
        raise UsageError(f"input {entry.name!r} of {path} has type {entry.type}, which cannot be filled with numbers")
    free = _free(entry)
    sizes = list(entry.shape)
    if 0 in free:
        sizes[0] = batch
    if given is not None and len(given) == len(sizes):
        sizes = [given[i] if i in free and i else size for i, size in enumerate(sizes)]
    if any(not isinstance(size, int) for size in sizes):
        raise UsageError(
            f"input {entry.name!r} of {path} has free dimensions {free}; only the first may be free",
            fix="give its shape with --input-shape",
        )
    shape = tuple(sizes)
    generator = np.random.default_rng(SEED)
    dtype = DTYPES[entry.type]
    if np.issubdtype(dtype, np.floating):
        return generator.standard_normal(shape).astype(dtype)
    # Zero and one are valid as indices, flags and pixels alike.
    return generator.integers(0, 2, shape).astype(dtype)


def _bound(session: Any, feed: dict[str, np.ndarray]) -> Any:
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
    for entry in session.get_outputs():
        binding.bind_output(entry.name, "cuda")
    return binding


def _device(device: str) -> torch.device:
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"no device named {device!r}", fix="use cpu or cuda") from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("PyTorch sees no CUDA device", fix="use --device cpu")
    return where


def _ready(module: nn.Module, where: torch.device) -> nn.Module:
    """Return `module` itself where it is in eval mode on `where` already, else a copy that is."""
    tensors = [*module.parameters(), *module.buffers()]
    # A frozen TorchScript module has no mode left: it can only evaluate.
    if all(t.device == where for t in tensors) and not any(getattr(m, "training", False) for m in module.modules()):
        return module
    ready = copy.deepcopy(module).to(where)
    for part in ready.modules():
        # Modules from torch.export refuse eval().
        part.training = False
    return ready


def _cuda_seconds(run: Callable[[], None], where: torch.device) -> Callable[[int], float]:
    def seconds(count: int) -> float:
        """Run `count` passes between two events; return the device's seconds."""
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        stream = torch.cuda.current_stream(where)
        torch.cuda.synchronize(where)
        start.record(stream)
        for _ in range(count):
            run()
        stop.record(stream)
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1e3

    return seconds
