"""Which slices leave together in networks whose answer is known, and that cutting them is exact."""

from __future__ import annotations

import pytest

from compress.core.choosing import Attention
from compress.graph.analyse import analyse
from compress.graph.groups import pinned_components
from tests.zoo.case import answer
from tests.zoo.cases import CASES
from tests.zoo.harness import Snapshot, cut_both, leaving_with, randomised

NAMES = sorted(CASES)


@pytest.mark.parametrize("name", NAMES)
def test_channels_are_complete(name: str) -> None:
    """Every slice that the answer names leaves together, nothing else does, and the channel is free."""
    case = CASES[name]()
    analysis = analyse(randomised(case.module), case.example, attention=case.attention)
    fixed = pinned_components(analysis)
    for text in case.together:
        expected = answer(case.module, text)
        for slot, indices in expected.items():
            parameter, _, dim = slot.rpartition(":")
            labels = analysis.parameters[parameter][int(dim)]
            assert labels is not None
            assert leaving_with(analysis, parameter, int(dim), indices[0]) == expected
            assert not fixed[analysis.component[labels[indices[0]]]]


@pytest.mark.parametrize("name", [n for n in NAMES if CASES[n]().stay])
def test_what_stays_says_why(name: str) -> None:
    """Slices that must stay are in a pinned group whose reason names the cause."""
    case = CASES[name]()
    analysis = analyse(randomised(case.module), case.example, attention=case.attention)
    for text, words in case.stay.items():
        for slot, indices in answer(case.module, text).items():
            parameter, _, dim = slot.rpartition(":")
            holders = [
                group
                for group in analysis.groups
                for m in group.members
                if (m.parameter, m.dim) == (parameter, int(dim)) and (m.indices == indices[0]).any()
            ]
            assert holders, f"{slot} is in no group"
            assert all(group.pinned for group in holders)
            assert any(words in str(reason) for group in holders for reason in group.pinned), holders[0].pinned


@pytest.mark.parametrize("attention", list(Attention))
@pytest.mark.parametrize("name", NAMES)
def test_cut_is_the_masked_original(name: str, attention: Attention) -> None:
    """A random cut of the module (of the graph where its code cannot follow) computes the masked original."""
    case = CASES[name]()
    module = randomised(case.module)
    before = Snapshot.of(module)
    outcome = cut_both(module, case.example, attention=attention, graph=case.exports)
    assert outcome.worst <= 1e-6, (outcome.module_error, outcome.graph_error)
    assert outcome.module_error is not None or outcome.graph_error is not None
    assert before.same(module)
    if case.follows and attention is case.attention:
        assert outcome.why_not is None, outcome.why_not
