"""How much worse the answers may get: one frozen record a kind of bound, and how long the search for it may take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from compress.core.errors import UsageError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class MaxDrop:
    """Top-1 accuracy may fall by so many points, on the labelled images that the report is on."""

    points: float
    option: ClassVar[str] = "max-drop"

    def __post_init__(self) -> None:
        """Refuse what is no loss."""
        if not 0 <= self.points < 100:
            raise UsageError(
                f"--max-drop must be in [0, 100), got {self.points:g}", fix="--max-drop 1.0 allows one point of top-1"
            )

    def floor(self, original: float) -> float:
        """The least top-1, in [0, 1], that the bound allows."""
        return original - self.points / 100

    def __str__(self) -> str:
        """In words."""
        return f"at most {self.points:g} points of top-1 lost"


@dataclass(frozen=True, slots=True)
class MinAgreement:
    """The network must give the original's answer on at least this fraction of the images; no labels are needed."""

    fraction: float
    option: ClassVar[str] = "min-agreement"

    def __post_init__(self) -> None:
        """Refuse what is no fraction."""
        if not 0 < self.fraction <= 1:
            raise UsageError(
                f"--min-agreement must be in (0, 1], got {self.fraction:g}", fix="--min-agreement 0.98 allows 2 %"
            )

    def floor(self, original: float) -> float:
        """The least agreement, in [0, 1]; the original agrees with itself."""
        del original
        return self.fraction

    def __str__(self) -> str:
        """In words."""
        return f"the original's answer on at least {self.fraction:g} of the images"


Bound = MaxDrop | MinAgreement


def bound_of(max_drop: float | None, min_agreement: float | None) -> Bound | None:
    """Return the one bound that is asked for, None where there is none; UsageError where there are two."""
    if max_drop is not None and min_agreement is not None:
        raise UsageError(
            "--max-drop and --min-agreement exclude each other", fix="keep --max-drop where there are labels"
        )
    if max_drop is not None:
        return MaxDrop(max_drop)
    return None if min_agreement is None else MinAgreement(min_agreement)


def seconds_of(text: str | float | None) -> float | None:
    """Read a duration: seconds, or a text with s, m or h.

    >>> seconds_of("10m"), seconds_of("90"), seconds_of(2.5), seconds_of(None)
    (600.0, 90.0, 2.5, None)
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([smh]?)", str(text))
    if not found or float(found[1]) <= 0:
        raise UsageError(f"--time-budget must be a duration, got {text!r}", fix="--time-budget 10m, or 90s, or 2h")
    return float(found[1]) * _UNITS[found[2]]
