"""A data set as its files give it, before any preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from compress.core.registry import Registry

Split = Literal["test", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Images and labels as they come.

    `image(i)` is a PIL image, a uint8 array (H, W[, C]), or a float32 tensor (C, H, W) that is used as it is.
    `labels` is None where there are none, or where they come with each item only. `one_to_one` says that the labels
    number this data set's own classes (folders), so that their count must be the network's.
    """

    name: str
    length: int
    image: Callable[[int], Any]
    labels: Sequence[int] | None = None
    label: Callable[[int], int] | None = None
    class_names: tuple[str, ...] = ()
    one_to_one: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a reader is asked for: a place (or None for the usual ones), a part of the data, colour or grey."""

    place: Path | None
    split: Split
    download: bool
    channels: int


# data sets that have a name of their own: `name[:DIR]`
named: Registry[Callable[[Request], Raw]] = Registry("data set")
