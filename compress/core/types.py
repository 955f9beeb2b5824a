"""The data that flows from stage to stage. Frozen; no behaviour beyond reading and checking itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compress.core.choosing import Attention
from compress.core.deploying import Precision
from compress.core.errors import PlanError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from compress.core.members import Members


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How an image becomes a network's input: resize, centre crop, scale to [0, 1], normalise.

    `mean` and `std` hold one number per channel, for values in [0, 1]. `resize` is the length of the
    shorter side in pixels, `crop` the side of the centre crop; None leaves the image's own size.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: int | None = None
    crop: int | None = None
    interpolation: str = "bilinear"
    source: str = "none"

    def __str__(self) -> str:
        """Describe the steps in one line, and where they were taken from."""
        steps = [f"resize {self.resize}"] if self.resize else []
        steps += [f"centre crop {self.crop}"] if self.crop else []
        steps += ["scale to [0, 1]"]
        mean, std = ([round(value, 4) for value in values] for values in (self.mean, self.std))
        steps += [f"mean {mean} std {std}"] if self.mean else []
        return ", ".join(steps) + f" (from {self.source})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A loaded network, whatever file it came from.

    `module` is in eval mode on the CPU. `example` holds its positional inputs, batch size 2 where the
    network lets us choose. `arch` is the text that builds the same architecture again ("torchvision:resnet18",
    "timm:...", "file.py:factory") with `arch_options` as keyword arguments; None for networks that carry their
    own graph. `plan` and `cut_state` are set when the file holds a network that `compress` has cut before:
    `module` is then the *uncut* architecture, and `as_graph` tells that the cut one was a rewritten graph.
    """

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]
    kind: str
    arch: str | None = None
    arch_options: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    plan: Plan | None = None
    cut_state: Mapping[str, Tensor] | None = None
    as_graph: bool = False
    dynamic_batch: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """Why channels must stay: in words, the operator that asks for it, and its module and source line ("" for none).

    >>> str(Reason("output of the network")), str(Reason("taken alone", "aten.select", "head (net.py:3)"))
    ('output of the network', 'taken alone, aten.select at head (net.py:3)')
    """

    why: str
    operator: str = ""
    where: str = ""

    def __str__(self) -> str:
        """Say the reason and its place in words."""
        return f"{self.why}, {self.operator} at {self.where}" if self.operator else self.why


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that occupy the same parameter dimensions, each of which can leave on its own.

    `pinned` holds the reasons why the group must stay; empty means prunable. `labels` are the numbers by which
    the graph stage knows the channels, shape (channels,).
    """

    name: str
    members: Members
    labels: np.ndarray
    pinned: tuple[Reason, ...] = ()

    @property
    def size(self) -> int:
        """Number of channels."""
        return len(self.labels)

    @property
    def prunable(self) -> bool:
        """Whether channels of the group may leave."""
        return not self.pinned


@dataclass(frozen=True, slots=True)
class Plan:
    """What stays, and nothing else: parameter name -> dimension -> kept indices. Only changed dimensions appear.

    With `submodule` the names are those inside that submodule, which was cut by itself. `drop` maps residual blocks
    that were reduced to their shortcuts first (the first layer of each branch) to how that was done.

    >>> plan = Plan({"conv.weight": {0: (0, 2)}})
    >>> Plan.from_json(plan.to_json()) == plan
    True
    """

    keep: Mapping[str, Mapping[int, tuple[int, ...]]]
    attention: Attention = Attention.HEADS
    submodule: str | None = None
    drop: Mapping[str, str] = field(default_factory=dict)

    def to_json(self, cfg: Sequence[int | str] | None = None) -> str:
        """Return the plan as a JSON text with keys in order, so that equal plans are equal texts.

        `cfg` lists the widths of a plain chain, for whoever builds the network from them.
        """
        keep = {
            name: {str(dim): list(self.keep[name][dim]) for dim in sorted(self.keep[name])}
            for name in sorted(self.keep)
        }
        inside: dict[str, Any] = {"submodule": self.submodule} if self.submodule is not None else {}
        inside |= {"drop": dict(self.drop)} if self.drop else {}
        inside |= {"cfg": list(cfg)} if cfg is not None else {}
        return json.dumps({"format": "compress-plan-1", "attention": str(self.attention), **inside, "keep": keep})

    @staticmethod
    def from_json(text: str) -> Plan:
        """Read a plan back; PlanError where `text` is not one."""
        try:
            data = json.loads(text)
            keep = {
                str(name): {int(dim): tuple(int(i) for i in kept) for dim, kept in dims.items()}
                for name, dims in data["keep"].items()
            }
            drop = {str(key): str(how) for key, how in data.get("drop", {}).items()}
            return Plan(keep, Attention(data.get("attention", "heads")), data.get("submodule"), drop)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PlanError(
                f"not a plan: {error!r}", fix='a plan is {"keep": {"<parameter>": {"<dim>": [kept indices]}}}'
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How far the cut network is from the masked original, in float64.

    `max_relative_error` is max |cut - masked| over max |masked|, over all outputs, with `tolerance` the bound.
    """

    max_relative_error: float
    tolerance: float
    reference: str

    @property
    def exact(self) -> bool:
        """Whether the cut changed nothing beyond rounding; NaN is not exact."""
        return self.max_relative_error <= self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """What a network reaches on a labelled data set; fractions in [0, 1], loss in nats."""

    top1: float
    top5: float
    loss: float
    per_class: tuple[float, ...]
    images: int


# the steps of recovery that train
TRAINED = ("distilled", "tuned")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """What the network reaches after one step of recovery; the first step is the raw cut.

    `agreement` is the fraction of set-aside inputs on which original and cut network choose the same class, `distance`
    sum |cut - original|^2 / sum |original|^2 of their outputs there. Steps that train have `held_out`, the fraction
    answered as wanted (the label, or the original's answer) of the images held out of the training, and `loss`, the
    mean loss in nats on these, both of the best epoch. `seconds` is the step's own wall time. A step that
    did not help was taken back: `kept` is False, and its agreement and distance are None.
    """

    name: str
    accuracy: Accuracy | None = None
    agreement: float | None = None
    distance: float | None = None
    held_out: float | None = None
    loss: float | None = None
    seconds: float = 0.0
    note: str = ""
    kept: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One cut that was tried on the way to a bound.

    `asked` and `left` are shares of the original's MACs, `reached` the accuracy or agreement after recovery, in [0, 1],
    `holds` whether that is within the bound, `seconds` the wall time of cut, recovery and measurement.
    """

    asked: float
    left: float
    macs: int
    reached: float
    holds: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How the smallest network within a bound was found: what was asked, on which images, every cut, and why it ended.

    `original` is the original's accuracy there (1 where agreement with it is asked), `least` the least that holds.
    """

    bound: str
    on: str
    original: float
    least: float
    trials: tuple[Trial, ...]
    ended: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One of several cuts: what it left of the original's MACs and parameters, and how exact it was.

    `max_relative_error` is against the masked network of that step, None where that was not checked; `reached` is
    what the network reached after the recovery of the step.
    """

    macs: int
    parameters: int
    max_relative_error: float | None
    reached: StageResult | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What one forward pass costs. MACs are multiply-accumulates of conv, linear, matmul, attention at batch 1."""

    parameters: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One file that was written, reloaded in its own runtime, and found to compute the same.

    `max_relative_error` is the largest over `batch_sizes` of max |file - PyTorch| / max |PyTorch|; `sizes` are the
    heights and widths that were tried where those are free. `agreement` is the fraction of calibration inputs on which
    an int8 file chooses the float one's class. `beside` names files that belong to this one.
    """

    path: str
    target: str
    bytes: int
    max_relative_error: float
    batch_sizes: tuple[int, ...]
    notes: tuple[str, ...] = ()
    precision: Precision = Precision.FLOAT32
    sizes: tuple[tuple[int, int], ...] = ()
    agreement: float | None = None
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """Latency of two networks measured in interleaved rounds, in seconds per batch.

    `ratio` is the median over rounds of after / before; `low` and `high` are the 2.5 % and 97.5 % quantiles of its
    bootstrap distribution. Below 1 means that the second is faster.
    """

    runtime: str
    device: str
    threads: int
    batch: int
    before: float
    after: float
    ratio: float
    low: float
    high: float
    rounds: int
