"""What the commands that look at a network, without changing it, can be told, and how they open it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from compress.core.errors import DataError
from compress.core.progress import Progress
from compress.core.types import Network
from compress.evaluation.calibration import calibration_set
from compress.evaluation.data import Data
from compress.evaluation.judge import open_calibration, open_for
from compress.evaluation.stages import CALIBRATION_INPUTS, EVIDENCE_BATCH
from compress.importance import Evidence
from compress.measure.machine import this_machine
from compress.pipeline.opening import opened, read
from compress.pipeline.options import Reading
from compress.report.exploring import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploreOptions(Reading):
    """What `compress sweep`, `sensitivity` and `maps` share; see their --help."""

    checkpoint: Path
    calibration: str | None = None
    images: int | None = None
    threads: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Subject:
    """The network under study with the images it is judged on, and those that importance looks at."""

    network: Network
    data: Data
    learned: Data | None
    options: ExploreOptions

    @property
    def fixed(self) -> int | None:
        """The only batch size that the network takes, None where it takes any."""
        return None if self.network.dynamic_batch else len(self.network.example[0])

    @cached_property
    def inputs(self) -> tuple[Tensor, Tensor | None]:
        """Inputs that importance looks at, (N, ...), with their labels: of --calibration, else of --data."""
        source = self.learned or self.data
        shape = self.network.example[0].shape
        return calibration_set(shape, source, CALIBRATION_INPUTS, self.options.seed)

    @cached_property
    def evidence(self) -> Evidence:
        """What importance may look at; gathered once, whatever asks for it."""
        inputs, labels = self.inputs
        size = self.fixed or EVIDENCE_BATCH
        whole = len(inputs) // size * size if self.fixed else len(inputs)
        return Evidence(
            self.network.module,
            tuple(inputs[:whole].split(size)),
            None if labels is None else labels[:whole].split(size),
            fixed=self.fixed is not None,
        )

    @property
    def seen(self) -> str:
        """What importance looked at, in words."""
        count = f"{len(self.inputs[0]):,} inputs"
        return f"{self.learned.name}, {count}" if self.learned is not None else f"{self.data.name} itself, {count}"

    def origin(self, command: str, argv: Sequence[str] | None = None) -> Origin:
        """Where the figures of `command` come from."""
        preprocessing = self.data.preprocessing
        return Origin(
            command=command,
            argv=tuple(argv if argv is not None else sys.argv[1:]),
            network=self.network.name,
            path=str(self.options.checkpoint),
            arch=self.network.arch,
            data=self.data.name,
            preprocessing=None if preprocessing is None else str(preprocessing),
            seed=self.options.seed,
            threads=torch.get_num_threads(),
            machine=this_machine(),
            notes=(*self.network.notes, *self.data.notes),
        )


def subject(options: ExploreOptions, told: Progress) -> Subject:
    """Open network and images. Raises CheckpointError and DataError, each saying what to do."""
    torch.manual_seed(options.seed)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    with told.stage("load"):
        network, _ = opened(read(options.checkpoint, options))
        data = open_for(network, options, None)
        learned = open_calibration(network, options.calibration, options, data)
    if data is None:
        raise DataError("no images are given", fix="name them with --data")
    return Subject(network, data, learned, replace(options))
