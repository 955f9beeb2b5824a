"""Layer times on disk: one file a machine, runtime, thread count and batch, that grows with every network.

A process that needs times which are not there yet measures them while it holds the file's lock, so two processes
neither disturb each other's measurement nor measure the same twice; the file is replaced whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.core.errors import UsageError
from compress.core.files import written_whole
from compress.core.latency import Layer, LayerShape
from compress.measure.machine import Machine

FORMAT = 1

Times = dict[Layer, float]
Measure = Callable[[Sequence[Layer]], Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What times hang on besides the layer: another of any of these is another file."""

    cpu: str
    isa: tuple[str, ...]
    cores: int
    gpu: str | None
    runtime: str
    provider: str
    threads: int
    batch: int
    format: int = FORMAT

    @property
    def key(self) -> str:
        """A name for the file, another one for another device."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def device_of(machine: Machine, *, provider: str, threads: int, batch: int) -> Device:
    """Return the device that this machine is with so many threads and inputs a pass."""
    return Device(
        cpu=machine.cpu,
        isa=machine.isa,
        cores=machine.cores,
        gpu=machine.gpu if provider.startswith("CUDA") else None,
        runtime=f"onnxruntime {machine.onnxruntime}",
        provider=provider,
        threads=threads,
        batch=batch,
    )


def cache_folder() -> Path:
    """Where times are kept: $XDG_CACHE_HOME/compress, else ~/.cache/compress."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "compress"


def times_of(layers: Sequence[Layer], device: Device, measure: Measure, folder: Path | None = None) -> Times:
    """Return the seconds of all `layers`; what the file of this device does not hold is measured and added to it.

    `folder` None is the user's cache. Raises UsageError where that cannot be written to.
    """
    folder = cache_folder() if folder is None else folder
    path = folder / f"layers-{device.key}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot keep layer times in {folder}: {error.strerror}", fix="set XDG_CACHE_HOME to a folder of yours"
        ) from error
    known = _read(path, device)
    if all(layer in known for layer in layers):
        return {layer: known[layer] for layer in layers}
    with _locked(path.with_suffix(".lock")):
        known = _read(path, device)  # another process may have measured them while this one waited
        missing = [layer for layer in dict.fromkeys(layers) if layer not in known]
        if missing:
            known |= dict(zip(missing, measure(missing), strict=True))
            with written_whole(path) as temporary:
                temporary.write_text(_written(known, device), encoding="utf-8")
    return {layer: known[layer] for layer in layers}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock; wait where another process holds it. It is given up with the process, however that ends."""
    try:
        handle = path.open("a", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}", fix="set XDG_CACHE_HOME to a folder of yours"
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _written(known: Mapping[Layer, float], device: Device) -> str:
    rows = [[asdict(shape), inputs, outputs, seconds] for (shape, inputs, outputs), seconds in known.items()]
    return json.dumps({"device": asdict(device), "seconds": rows})


def _read(path: Path, device: Device) -> Times:
    """Return the times in the file; none where there is no file, or one that is not what this device wrote."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        if data["device"] != json.loads(json.dumps(asdict(device))):
            return {}
        return {(_shape(fields), int(i), int(o)): float(seconds) for fields, i, o, seconds in data["seconds"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _shape(fields: Mapping[str, Any]) -> LayerShape:
    read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return LayerShape(**read)
