"""What a benchmark found, as plain frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compress.core.measuring import Backend, Device
from compress.measure.explain import Explained
from compress.measure.statistics import PairedRatio, Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One file in one backend and setting. Seconds are for a pass over `batch` inputs, `throughput` inputs a second.

    `ratio` is the latency against the first file's in the same backend and setting (None for that one itself).
    `load` is in seconds, `peak` in bytes beyond the libraries' own, each None where it was not measured.
    """

    label: str
    path: str
    backend: Backend
    runtime: str
    device: Device
    batch: int
    threads: int
    file_bytes: int
    seconds: Spread
    throughput: float
    rounds: int
    ratio: PairedRatio | None = None
    load: float | None = None
    peak: int | None = None
    device_peak: int | None = None
    accuracy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """What could not be measured, and why."""

    label: str
    backend: Backend
    setting: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """Everything that one run of `compress bench` measured; `layers` is None without --per-layer."""

    standings: tuple[Standing, ...]
    skipped: tuple[Skipped, ...] = ()
    layers: tuple[Explained, ...] = ()
    notes: tuple[str, ...] = ()
    machine: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    seconds: float = 0.0
