"""What one `slim` run found out, as plain frozen data: every table and file is made from this and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compress.core.choosing import Scope
from compress.core.deploying import Precision
from compress.core.types import Accuracy, Costs, Exported, Search, Speedup, StageResult, Step, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the network came from.

    `path` is the checkpoint file (None for a module handed over in Python), `kind` what was found in it,
    `input_shape` the shape of the first input, batch included, `bytes` the size of the file.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    path: str | None = None
    arch: str | None = None
    preprocessing: str | None = None
    bytes: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Channels of one group before and after; `pinned` says why none of them could leave, None where they could."""

    name: str
    before: int
    after: int
    pinned: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CutFacts:
    """What was asked for and what left.

    `asked` says in words how much was to leave, `budget` holds the option and its numbers ({"macs": {"left": 0.5}}),
    empty where a plan was replayed. `channels` counts the channels that were free to leave, `removed` those that left.
    `criterion` describes the importance in words, `round_reason` why widths are multiples of `round_to`. `cfg_before`
    and `cfg_after` list the widths of a network that is a plain chain, with "M" for pooling; None for others.
    """

    asked: str
    scope: Scope
    importance: str
    criterion: str
    round_to: int
    round_reason: str
    channels: int
    removed: int
    groups: tuple[GroupRow, ...] = ()
    budget: Mapping[str, object] = field(default_factory=dict)
    cfg_before: tuple[int | str, ...] | None = None
    cfg_after: tuple[int | str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSizes:
    """Bytes of the same kind of file before and after the cut; `what` names the kind."""

    before: int
    after: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployStep:
    """What one step on the way to a deployed file reaches: the original, the cut network, the cut one in less bits.

    `accuracy` of a file is that in its own runtime. `agreement` is the fraction of calibration inputs on which it
    chooses the class of the step before, `latency` its time against the original's float32 ONNX file.
    """

    name: str
    precision: Precision = Precision.FLOAT32
    path: str | None = None
    bytes: int | None = None
    accuracy: Accuracy | None = None
    agreement: float | None = None
    latency: Speedup | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlimReport:
    """Everything that one run of `slim` measured.

    `delivered` is "your own class package.module.Class" or "rewritten graph", `delivered_why` why it is that.
    `agreement` is the fraction of calibration inputs on which original and cut network choose the same class.
    `steps` are the cuts that led here where there were several, `search` the cuts that were tried for a bound.
    `recovered` is False where nothing was done after the cut to win accuracy back; `stages` are the steps of what was,
    `calibration` the inputs that they learned from, `trained_on` those of the steps that train.
    `seconds` maps stage to wall time.
    """

    source: Source
    cut: CutFacts
    verdict: Verdict | None
    delivered: str
    delivered_why: str
    costs_before: Costs
    costs_after: Costs
    file_sizes: FileSizes | None = None
    accuracy_original: Accuracy | None = None
    accuracy_masked: Accuracy | None = None
    accuracy_pruned: Accuracy | None = None
    data: str | None = None
    agreement: float | None = None
    agreement_on: str | None = None
    recovered: bool = False
    stages: tuple[StageResult, ...] = ()
    steps: tuple[Step, ...] = ()
    search: Search | None = None
    calibration: str | None = None
    trained_on: str | None = None
    exported: tuple[Exported, ...] = ()
    deployment: tuple[DeployStep, ...] = ()
    speedups: tuple[Speedup, ...] = ()
    saved: str | None = None
    plan_out: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    machine: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    batch: int = 1
    seed: int = 0
    command: str = ""
    warnings: tuple[str, ...] = ()
