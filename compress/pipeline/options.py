"""What `compress slim` can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compress.core.choosing import Attention, Scope
from compress.core.deploying import Int8Method
from compress.evaluation.judge import DataOptions
from compress.recovery.training.recipe import Optimizer, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Given(DataOptions):
    """What is told of networks and images that are read, whether there is one network or several."""

    input_shape: tuple[int, ...] | None = None
    num_classes: int | None = None
    trust: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading(Given):
    """How one network and images are read: what the commands that read both have in common."""

    arch: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlimOptions(Reading):
    """Everything that `compress slim` can be told; see its --help for what each means."""

    checkpoint: Path
    percent: float | None = None
    macs: float | str | None = None
    params: float | str | None = None
    size: float | str | None = None
    steps: int = 1
    max_drop: float | None = None
    min_agreement: float | None = None
    time_budget: str | float | None = None
    latency: float | str | None = None
    widths: Mapping[str, int] | str | None = None
    drop_dead: bool | None = None
    drop_blocks: str | int | None = None
    scope: Scope = Scope.GLOBAL
    importance: str | None = None
    round_to: int | None = None
    min_channels: int = 1
    keep: tuple[str, ...] = ()
    ratio: tuple[tuple[str, float], ...] = ()
    max_ratio: float = 1.0
    attention: Attention = Attention.HEADS
    submodule: str | None = None
    calibration: str | None = None
    recover: bool = True
    finetune: int = 0
    distill: int = 0
    distill_features: bool = False
    train: str | None = None
    lr: float | None = None
    batch_size: int | None = None
    optimizer: Optimizer | None = None
    precision: Precision = Precision.AUTO
    channels_last: bool = False
    resume: bool = False
    checkpoint_every: int = 500
    device: str | None = None
    plan_in: Path | None = None
    plan_out: Path | None = None
    save: Path | None = None
    out: tuple[Path, ...] = ()
    json: Path | None = None
    verify: bool = True
    bench: bool = True
    opset: int | None = None
    dynamic_size: bool = False
    optimize: bool = False
    fp16: bool = False
    int8: bool = False
    int8_auto: bool = False
    int8_method: Int8Method = Int8Method.MINMAX
    int8_max_drop: float = 1.0
    threads: int | None = None
    batch: int = 1
    seed: int = 0
