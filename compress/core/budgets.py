"""How much may stay, or shall leave: one frozen record a kind of budget, entered under the name of its option.

A new kind is a record here, a function in `compress/budget/` that chooses channels for it, and an option of the command
line with the same name. Nothing else knows which kinds there are.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from compress.core.errors import UsageError
from compress.core.latency import LatencyCosts
from compress.core.registry import Registry

_SCALES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


@dataclass(frozen=True, slots=True)
class Budget(ABC):
    """One kind of budget; `option` names it on the command line, `example` is how it is asked for.

    `criterion` is the importance by which it must be met, where it is defined by one; `exact` tells that the budget
    names widths itself, so that they are not rounded.
    """

    option: ClassVar[str]
    example: ClassVar[str]
    criterion: ClassVar[str | None] = None
    exact: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def read(cls, given: Any) -> Self:
        """Make one from what the user gave, a text or a number; UsageError where it is neither meant nor possible."""

    @abstractmethod
    def __str__(self) -> str:
        """What was asked for, in words."""


KINDS: Registry[type[Budget]] = Registry("budget")


def kind(cls: type[Budget]) -> type[Budget]:
    """Enter a kind of budget under the name of its option."""
    KINDS.add(cls.option, cls)
    return cls


def asked(given: Mapping[str, Any], *, otherwise: str | None = None) -> Budget | None:
    """Return the one budget among the options in `given`; None where there is none, UsageError where there are two.

    `otherwise` names what was asked for beside the budgets, which excludes them, too.

    >>> asked({"percent": 0.5, "macs": None})
    Percent(value=0.5)
    >>> asked({"macs": "900M", "percent": 0.5})
    Traceback (most recent call last):
    compress.core.errors.UsageError: --percent and --macs exclude each other: each says what leaves
      fix: keep one of them
    """
    named = [name for name in KINDS if given.get(name) is not None]
    excluding = [*(f"--{name.replace('_', '-')}" for name in named), *([otherwise] if otherwise else [])]
    if len(excluding) > 1:
        raise UsageError(f"{' and '.join(excluding)} exclude each other: each says what leaves", fix="keep one of them")
    return KINDS[named[0]].read(given[named[0]]) if named else None


def amount(text: str | float, units: str = "") -> float | None:
    """Read 0.5, "0.5", "900M" or, with units "B", "4MB" and "4MiB"; None where it is no positive, finite number.

    >>> amount("900M"), amount("4MB", "B"), amount("2Ki"), amount("much"), amount(-1)
    (900000000.0, 4000000.0, 2048.0, None, None)
    """
    found = re.fullmatch(rf"([0-9.eE+-]+)\s*([kKMG]?i?)(?:{units})?", str(text))
    try:
        number = float(found[1]) * _SCALES[found[2]] if found else 0.0
    except (ValueError, KeyError):
        return None
    return number if 0 < number < float("inf") else None


@kind
@dataclass(frozen=True, slots=True)
class Percent(Budget):
    """A fraction of the channels leaves: `value` in [0, 1)."""

    value: float
    option: ClassVar[str] = "percent"
    example: ClassVar[str] = "--percent 0.5 removes half of the channels"

    def __post_init__(self) -> None:
        """Refuse what is no fraction."""
        if not 0 <= self.value < 1:
            raise UsageError(f"--percent must be in [0, 1), got {self.value:g}", fix="0.5 removes half of the channels")

    @classmethod
    def read(cls, given: Any) -> Self:
        """Read a fraction."""
        try:
            return cls(float(given))
        except ValueError:
            raise UsageError(f"--percent must be a number, got {given!r}", fix=cls.example) from None

    def __str__(self) -> str:
        """In words."""
        return f"{self.value:g} of the channels to leave"


@dataclass(frozen=True, slots=True)
class Amount(Budget):
    """So much of something that is counted may be left: up to 1 a fraction of the original's, above 1 a number."""

    left: float
    noun: ClassVar[str]
    units: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Refuse what is not positive."""
        if not 0 < self.left < float("inf"):
            raise UsageError(f"--{self.option} must be positive, got {self.left:g}", fix=self.example)

    @classmethod
    def read(cls, given: Any) -> Self:
        """Read a fraction or a number."""
        number = amount(given, cls.units)
        if number is None:
            raise UsageError(f"--{cls.option} must be a positive number, got {given!r}", fix=cls.example)
        return cls(number)

    def of(self, original: float) -> float:
        """How much that is where the original has `original`."""
        return self.left * original if self.left <= 1 else self.left

    def __str__(self) -> str:
        """In words."""
        much = f"{self.left:g} of the {self.noun}" if self.left <= 1 else f"{self.left:,.0f} {self.noun}"
        return f"at most {much} left"


@kind
@dataclass(frozen=True, slots=True)
class Macs(Amount):
    """So many MACs of one input may be left."""

    option: ClassVar[str] = "macs"
    noun: ClassVar[str] = "MACs"
    example: ClassVar[str] = "--macs 0.5 leaves half of them, --macs 900M so many"


@kind
@dataclass(frozen=True, slots=True)
class Params(Amount):
    """So many parameters may be left."""

    option: ClassVar[str] = "params"
    noun: ClassVar[str] = "parameters"
    example: ClassVar[str] = "--params 0.5 leaves half of them, --params 5M so many"


@kind
@dataclass(frozen=True, slots=True)
class Size(Amount):
    """The network as an ONNX file may take so many bytes."""

    option: ClassVar[str] = "size"
    noun: ClassVar[str] = "bytes"
    units: ClassVar[str] = "B"
    example: ClassVar[str] = "--size 4MB, or 0.5 of what the original's ONNX file takes"


@dataclass(frozen=True, slots=True)
class Bytes(Amount):
    """The tensors of the network may take so many bytes: what a size comes down to once files have been measured."""

    option: ClassVar[str] = "size"
    noun: ClassVar[str] = "bytes of tensors"
    example: ClassVar[str] = Size.example


@kind
@dataclass(frozen=True, slots=True)
class Latency(Amount):
    """So much of the measured latency may be left: up to 1 a fraction of the original's, above 1 microseconds.

    `batch` inputs a pass are timed; `stepped` keeps widths at multiples of what the runtime is found to step by.
    `costs` are measured on the device before channels are chosen. `aim` moves what the choice aims at where a
    measurement of its result has shown by how much the prediction is off.
    """

    costs: LatencyCosts | None = field(default=None, compare=False, repr=False)
    batch: int = field(default=1, compare=False)
    stepped: bool = field(default=False, compare=False)
    aim: float = field(default=1.0, compare=False, repr=False)
    option: ClassVar[str] = "latency"
    noun: ClassVar[str] = "predicted microseconds"
    example: ClassVar[str] = "--latency 0.5 halves it, --latency 8ms asks for so long a pass"

    @classmethod
    def read(cls, given: Any) -> Self:
        """Read a fraction of at most 1, or a time with its unit."""
        found = re.fullmatch(r"([0-9.eE+-]+)\s*(us|ms|s)?", str(given).strip().replace("µ", "u"))
        try:
            number = float(found[1]) if found else 0.0
        except ValueError:
            number = 0.0
        unit = {"us": 1.0, "ms": 1e3, "s": 1e6}.get(found[2] if found and found[2] else "")
        if not 0 < number < float("inf") or (unit is None and number > 1) or (unit is not None and number * unit <= 1):
            raise UsageError(
                f"--latency must be a fraction in (0, 1] or a time such as 8ms, got {given!r}", fix=cls.example
            )
        return cls(number if unit is None else number * unit)

    def of(self, original: float) -> float:
        """How many microseconds to aim at where the original takes `original`."""
        return self.aim * Amount.of(self, original)

    def __str__(self) -> str:
        """In words."""
        return f"{self.left:g} of the latency" if self.left <= 1 else f"a latency of {self.left / 1e3:g} ms"


@kind
@dataclass(frozen=True, slots=True)
class Widths(Budget):
    """So many channels stay of the layers that a name or glob matches: pairs of name and number.

    >>> Widths.read("conv1=8,layer2.*=16").widths
    (('conv1', 8), ('layer2.*', 16))
    """

    widths: tuple[tuple[str, int], ...]
    option: ClassVar[str] = "widths"
    example: ClassVar[str] = "--widths conv1=8,conv2=16 keeps 8 and 16 channels"
    exact: ClassVar[bool] = True

    @classmethod
    def read(cls, given: Any) -> Self:
        """Read "conv1=8,conv2=16", or a mapping."""
        parts = given.items() if isinstance(given, Mapping) else [p.rpartition("=")[::2] for p in str(given).split(",")]
        found = tuple((str(name).strip(), int(n) if str(n).strip().isdecimal() else 0) for name, n in parts)
        if not found or not all(name and number > 0 for name, number in found):
            raise UsageError(f"--widths must be NAME=CHANNELS with commas between, got {given!r}", fix=cls.example)
        return cls(found)

    def __str__(self) -> str:
        """In words."""
        return "widths " + ", ".join(f"{name} {number}" for name, number in self.widths)


@dataclass(frozen=True, slots=True)
class Plain(Budget):
    """A budget that is asked for by its name alone; `words` say what it is."""

    words: ClassVar[str]

    @classmethod
    def read(cls, given: Any) -> Self:
        """There is nothing to read."""
        del given
        return cls()

    def __str__(self) -> str:
        """In words."""
        return self.words


@kind
@dataclass(frozen=True, slots=True)
class DropDead(Plain):
    """What never varies over the calibration inputs leaves."""

    option: ClassVar[str] = "drop_dead"
    example: ClassVar[str] = "--drop-dead removes channels that are the same on every calibration input"
    words: ClassVar[str] = "channels that never vary to leave"
    criterion: ClassVar[str | None] = "range"
    exact: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class NoChannels(Plain):
    """No channel leaves: only residual blocks do."""

    option: ClassVar[str] = "drop_blocks"
    example: ClassVar[str] = "--drop-blocks 1 reduces one residual block to its shortcut"
    words: ClassVar[str] = "no channel to leave"
