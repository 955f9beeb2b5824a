"""Where the components of a network occur in its parameters, as stretches rather than one index at a time.

Channels that a dense network concatenates are read by every later layer, so the indices grow with the square of its
depth; the stretches between two places where something changes stay few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Stretches:
    """Runs of components c, c + 1, ... and every place where one occurs: two runs are the same or share nothing.

    A run `r` holds the components from `first[r]`, `size[r]` of them. Occurrence `i` is one of run `run[i]`: its
    components have the labels from `label[i]` on, which belong to slot `slot[i]`. Occurrences are in order of their
    labels. All arrays are of int64.
    """

    first: np.ndarray
    size: np.ndarray
    run: np.ndarray
    slot: np.ndarray
    label: np.ndarray


def stretches(component: np.ndarray, starts: np.ndarray, ends: np.ndarray, apart: np.ndarray) -> Stretches:
    """Find the stretches of the labels `starts[s]` to `ends[s]` for all slots s, in order and without overlap.

    `component` is an array over labels. `apart` is a boolean array over components: where it changes, a run ends.

    >>> found = stretches(np.array([0, 1, 2, 3, 4, 3, 4]), np.array([1, 5]), np.array([5, 7]), np.zeros(5, dtype=bool))
    >>> found.first.tolist(), found.size.tolist()
    ([0, 1, 3], [1, 2, 2])
    >>> found.run.tolist(), found.slot.tolist(), found.label.tolist()
    ([1, 2, 2], [0, 0, 1], [1, 3, 5])
    """
    breaks = np.ones(len(component) + 1, dtype=bool)
    breaks[1:-1] = np.diff(component) != 1
    breaks[starts] = breaks[ends] = True
    label = np.flatnonzero(breaks)
    size, label = np.diff(label), label[:-1]
    slot = np.searchsorted(starts, label, side="right") - 1
    inside = (slot >= 0) & (label < ends[slot])
    label, size, slot = label[inside], size[inside], slot[inside]
    at = component[label]

    edges = np.zeros(len(apart) + 1, dtype=bool)
    edges[0] = edges[-1] = True
    edges[at] = edges[at + size] = True
    edges[1:-1] |= apart[1:] != apart[:-1]
    first = np.flatnonzero(edges)
    number = np.cumsum(edges) - 1
    low = number[at]
    parts = number[at + size] - low  # a stretch may cross what ends another one
    whole = np.repeat(np.arange(len(at)), parts)
    run = np.arange(len(whole)) - np.repeat(np.cumsum(parts) - parts - low, parts)
    return Stretches(first[:-1], np.diff(first), run, slot[whole], label[whole] + first[run] - at[whole])
