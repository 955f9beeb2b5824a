"""Labels that are tied, directly or through others, are one component: checked against a plain union of labels."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.core.types import Attention
from compress.graph.analyse import settle
from compress.graph.couplings import Couplings
from compress.graph.stretches import stretches


def _plain(count: int, ties: list[tuple[np.ndarray, np.ndarray]]) -> list[int]:
    """Components by repeated lowering, numbered in the order of their first labels."""
    lowest, before = np.arange(count), None
    while before is None or (lowest != before).any():
        before = lowest.copy()
        for one, two in ties:
            for a, b in zip(one.tolist(), two.tolist(), strict=True):
                lowest[a] = lowest[b] = min(lowest[a], lowest[b])
    order = {label: i for i, label in enumerate(dict.fromkeys(lowest.tolist()))}
    return [order[label] for label in lowest.tolist()]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_components_are_those_of_a_plain_union(seed: int) -> None:
    """Whole runs, runs in another order (their own too), concatenations tied several times, and the fixed label."""
    draw = np.random.default_rng(seed)
    couplings = Couplings(Attention.HEADS, [])
    runs = [couplings.fresh(int(draw.integers(1, 6))) for _ in range(8)]
    for _ in range(int(draw.integers(1, 9))):
        run = runs[int(draw.integers(len(runs)))]
        other = runs[int(draw.integers(len(runs)))]
        kind = int(draw.integers(4))
        if kind == 0 and other.size == run.size:
            couplings.tie(run, other)
        elif kind == 1:
            couplings.tie(run, draw.permutation(run))
        elif kind == 2:
            labels = draw.integers(0, couplings.count, size=run.size)
            couplings.tie(labels, run)
            couplings.tie(run, labels)
        else:
            labels = draw.permutation(np.concatenate([run, other]))
            wide = couplings.fresh(labels.size)
            runs.append(wide)
            couplings.tie(wide, labels)
    assert settle(couplings).tolist() == _plain(couplings.count, couplings.ties)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_stretches_hold_every_label_of_every_slot_once(seed: int) -> None:
    """Laid out, occurrences are the labels in order; runs part where `apart` changes and share no component."""
    draw = np.random.default_rng(seed)
    steps = draw.choice([1, 1, 1, 0, -3, 5], size=int(draw.integers(2, 40)))
    component = np.abs(np.cumsum(steps))
    apart = draw.random(int(component.max()) + 1) < 0.3
    bounds = np.unique([0, *draw.integers(1, len(component) + 1, size=int(draw.integers(1, 10)))])
    starts, ends = bounds[:-1], bounds[1:]
    kept = draw.random(len(starts)) < 0.8  # slots need not touch
    kept[0] = True
    starts, ends = starts[kept], ends[kept]
    found = stretches(component, starts, ends, apart)
    laid = [
        (slot, label + i, found.first[run] + i)
        for slot, label, run in zip(found.slot, found.label, found.run, strict=True)
        for i in range(found.size[run])
    ]
    plain = [(s, label, component[label]) for s in range(len(starts)) for label in range(starts[s], ends[s])]
    assert laid == plain
    held = [range(found.first[run], found.first[run] + found.size[run]) for run in set(found.run.tolist())]
    assert len({c for run in held for c in run}) == sum(len(run) for run in held)
    assert all(len(set(apart[list(run)].tolist())) == 1 for run in held)
