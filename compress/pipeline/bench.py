"""Measure files against each other: open them, run them in interleaved rounds, say what may be claimed."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import torch

from compress.checkpoint import load as read_checkpoint
from compress.checkpoint.sniff import Format, sniff
from compress.checkpoint.torchscript import read_archive
from compress.core.errors import CompressError, UsageError
from compress.core.measuring import Backend, Device
from compress.core.progress import Progress, Silent
from compress.measure.backends import Job, Setting, Subject, onnx_file, resolved, runner_of
from compress.measure.bench_results import BenchReport, Skipped, Standing
from compress.measure.explain import Explained, explained
from compress.measure.fresh import Fresh, in_fresh_process
from compress.measure.machine import kernel_block, this_machine
from compress.measure.onnx_layers import onnx_layers
from compress.measure.profile import profiled, with_work
from compress.measure.roofline import measured_roof
from compress.measure.rounds import interleaved
from compress.measure.runners import Runner
from compress.measure.size import file_bytes
from compress.measure.statistics import Outcome, paired, spread
from compress.pipeline.opening import opened
from compress.pipeline.options import Given
from compress.pipeline.reaching import top1_of
from compress.pipeline.verify import VerifyOptions
from compress.report.assemble import versions

FRESH = "compress.pipeline.fresh"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions(Given):
    """Everything that `compress bench` can be told; see its --help for what each means."""

    files: tuple[Path, ...]
    backends: tuple[Backend, ...] = (Backend.ONNXRUNTIME,)
    device: Device = Device.AUTO
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = ()
    rounds: int = 30
    max_seconds: float = 20.0
    per_layer: bool = False
    fresh: bool = True
    arch: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entrant:
    """One file in one backend, ready to run."""

    job: Job
    backend: Backend
    runner: Runner


def run_bench(options: BenchOptions, progress: Progress | None = None) -> BenchReport:
    """Do what `compress bench` does, and return every figure.

    Raises CompressError subclasses where a file cannot be opened, UsageError where nothing could be measured. What
    one backend cannot run is in the report with the reason.
    """
    told, start = progress or Silent(), time.perf_counter()
    device = resolved(options.device)
    threads = options.threads or (torch.get_num_threads(),)
    with told.stage("load"):
        subjects = [subject_of(path, options, at) for at, path in enumerate(options.files)]
    standings: list[Standing] = []
    skipped: list[Skipped] = []
    before = torch.get_num_threads()
    machine = this_machine()  # asked before anything runs, so that the load is other people's
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            for setting in [Setting(device=device, batch=b, threads=t) for b, t in product(options.batches, threads)]:
                torch.set_num_threads(setting.threads)
                entrants = list(_entrants(subjects, options, setting, folder, skipped, told))
                standings += _measured(entrants, options, setting, told)
        finally:
            torch.set_num_threads(before)
        if not standings:
            why = "; ".join(f"{s.label} in {s.backend}: {s.why}" for s in skipped)
            raise UsageError(f"nothing could be measured: {why}", fix="name another --backend, --device or --batch")
        standings = _judged(standings, subjects, options, told) if options.data is not None else standings
        standings = _fresh(standings, subjects, options, folder, skipped, told) if options.fresh else standings
        layers = _per_layer(subjects, options, threads[0], folder, skipped, told) if options.per_layer else ()
    return BenchReport(
        standings=tuple(standings),
        skipped=tuple(skipped),
        layers=layers,
        notes=_notes(standings, machine.load, machine.cores),
        machine=asdict(machine),
        versions=versions(),
        command=shlex.join(["compress", *sys.argv[1:]]),
        seconds=time.perf_counter() - start,
    )


def subject_of(path: Path, options: BenchOptions, at: int) -> Subject:
    """Open the file `at` its place among those named; ONNX files stay files."""
    label = path.name
    if [p.name for p in options.files].count(label) > 1:
        label = f"{label} ({at + 1})"
    if path.suffix.lower() == ".onnx":
        return Subject(label=label, path=path, network=None, shape=options.input_shape)
    layout = sniff(path)
    if layout is Format.TORCHSCRIPT:
        archive = read_archive(path, options.input_shape)
        return Subject(label=label, path=path, network=archive, shape=options.input_shape, script=True)
    own_graph = layout is Format.EXPORTED
    network = read_checkpoint(
        path,
        arch=None if own_graph else _arch(options, at),
        input_shape=options.input_shape,
        num_classes=None if own_graph else options.num_classes,
        trust=options.trust,
    )
    return Subject(
        label=label,
        path=path,
        network=opened(network)[0],
        shape=options.input_shape,
    )


def _arch(options: BenchOptions, at: int) -> str | None:
    """One architecture is everybody's; several are the files' in order."""
    if len(options.arch) < 2:
        return options.arch[0] if options.arch else None
    return options.arch[at] or None


def _entrants(
    subjects: Sequence[Subject],
    options: BenchOptions,
    setting: Setting,
    folder: Path,
    skipped: list[Skipped],
    told: Progress,
) -> Iterator[_Entrant]:
    where = f"{setting.device}, batch {setting.batch}, {setting.threads} threads"
    for backend, subject in product(options.backends, subjects):
        job = Job(subject=subject, setting=setting, folder=folder)
        try:
            with told.stage(f"prepare {subject.label} for {backend}"):
                yield _Entrant(job, backend, runner_of(backend, job))
        except CompressError as error:
            skipped.append(Skipped(label=subject.label, backend=backend, setting=where, why=error.what))


def _measured(
    entrants: Sequence[_Entrant], options: BenchOptions, setting: Setting, told: Progress
) -> Iterator[Standing]:
    """Run everything of one setting in the same rounds, with a second load of each backend's first file as control."""
    if not entrants:
        return
    firsts: dict[Backend, int] = {}
    for at, entrant in enumerate(entrants):
        firsts.setdefault(entrant.backend, at)
    others = {b for b in firsts if sum(e.backend == b for e in entrants) > 1}
    controls = {b: runner_of(b, entrants[firsts[b]].job) for b in firsts if b in others}
    title = f"{setting.device}, batch {setting.batch}, {setting.threads} threads"
    with told.stage(title, options.rounds) as advance:
        times = interleaved(
            [*(e.runner for e in entrants), *controls.values()],
            rounds=options.rounds,
            max_seconds=options.max_seconds * (len(entrants) + len(controls)) / 2,
            progress=advance,
        )
    second = dict(zip(controls, times[len(entrants) :], strict=True))
    for at, entrant in enumerate(entrants):
        first, runner = firsts[entrant.backend], entrant.runner
        seconds = spread(times[at])
        against = entrants[first].job.subject.label
        yield Standing(
            label=entrant.job.subject.label,
            path=str(entrant.job.subject.path),
            backend=entrant.backend,
            runtime=runner.runtime,
            device=setting.device,
            batch=runner.batch,
            threads=setting.threads,
            file_bytes=file_bytes(entrant.job.subject.path),
            seconds=seconds,
            throughput=runner.batch / seconds.p50,
            rounds=len(times[at]),
            ratio=None if at == first else paired(against, times[first], times[at], second.get(entrant.backend)),
        )


def _fresh(
    standings: Sequence[Standing],
    subjects: Sequence[Subject],
    options: BenchOptions,
    folder: Path,
    skipped: list[Skipped],
    told: Progress,
) -> list[Standing]:
    """Add load time and peak memory, seen in a process of its own for each file, backend and batch size."""
    places = {s.label: at for at, s in enumerate(subjects)}
    known: dict[tuple[str, Backend, int], Fresh | str] = {}
    found = []
    with told.stage("load time and memory", len(standings)) as advance:
        for standing in standings:
            key = (standing.label, standing.backend, standing.batch)
            if key not in known:
                made = folder / f"{standing.label}.onnx"
                named: dict[str, object] = {
                    "arch": _arch(options, places[standing.label]),
                    "made": str(made) if made.is_file() else None,
                    "num_classes": options.num_classes,
                    "shape": options.input_shape,
                    "trust": options.trust,
                }
                where = [standing.path, standing.backend, standing.device, str(standing.batch), str(standing.threads)]
                seen = known[key] = in_fresh_process(FRESH, [*where, json.dumps(named)])
                if isinstance(seen, str):
                    skipped.append(
                        Skipped(label=standing.label, backend=standing.backend, setting="load and memory", why=seen)
                    )
            now = known[key]
            if isinstance(now, Fresh):
                found.append(replace(standing, load=now.load, peak=now.peak, device_peak=now.device_peak))
            else:
                found.append(standing)
            advance(len(found), len(standings))
    return found


def _judged(
    standings: Sequence[Standing], subjects: Sequence[Subject], options: BenchOptions, told: Progress
) -> list[Standing]:
    """Add what every file reaches on --data, in the file's own runtime whatever it was timed in."""
    how = {name: getattr(options, name) for name in ("data", "download", "mean", "std", "resize")}
    how |= {"num_classes": options.num_classes, "trust": options.trust, "input_shape": options.input_shape}
    asked = [
        VerifyOptions(first=path, second=path, arch=_arch(options, at), **how) for at, path in enumerate(options.files)
    ]
    reached = dict(zip((s.label for s in subjects), top1_of(asked, told), strict=True))
    return [replace(standing, accuracy=reached[standing.label]) for standing in standings]


def _per_layer(
    subjects: Sequence[Subject],
    options: BenchOptions,
    threads: int,
    folder: Path,
    skipped: list[Skipped],
    told: Progress,
) -> tuple[Explained, ...]:
    """Profile every file in onnxruntime on the CPU, and explain it against the first."""
    setting = Setting(device=Device.CPU, batch=options.batches[0], threads=threads)
    with told.stage("roof of this machine"):
        roof = measured_roof(threads)
    profiles = []
    for subject in subjects:
        try:
            path = onnx_file(Job(subject=subject, setting=setting, folder=folder))
            with told.stage(f"profile {subject.label}"):
                nodes = profiled(path, batch=setting.batch, threads=threads, shape=subject.shape)
            profiles.append((subject.label, with_work(nodes, onnx_layers(path, subject.shape), setting.batch)))
        except CompressError as error:
            skipped.append(
                Skipped(label=subject.label, backend=Backend.ONNXRUNTIME, setting="per layer", why=error.what)
            )
    found = []
    for at, (label, times) in enumerate(profiles):
        if at == 0 and len(profiles) > 1:
            continue
        first, before = profiles[0] if at else (None, ())
        block = kernel_block()
        found.append(explained(label, times, roof, block=block, batch=setting.batch, against=first, before=before))
    return tuple(found)


def _notes(standings: Sequence[Standing], load: float | None, cores: int) -> tuple[str, ...]:
    notes = []
    if load is not None and load > 0.5 * cores:
        notes.append(f"other processes were running: load {load:.1f} on {cores} cores before the measurement")
    if any(s.ratio is not None and s.ratio.outcome is Outcome.NOISY for s in standings):
        notes.append("some intervals are too wide to say anything; measure again when the machine is quiet")
    return tuple(notes)
