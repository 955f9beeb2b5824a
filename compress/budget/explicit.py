"""Channels that the user or the data name: so many of these layers stay, or whatever never varies leaves."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase

import numpy as np

from compress.budget.choice import Choice, Problem, choose
from compress.core.budgets import DropDead, Widths
from compress.core.errors import PlanError
from compress.core.types import Group


@choose.register
def choose_widths(budget: Widths, problem: Problem) -> Choice:
    """Keep the most important channels of the named groups, so many as asked; other groups stay whole.

    Raises PlanError where a name fits no layer, where a group must stay or has fewer channels, where two names ask a
    group for different widths, or where nothing would leave.
    """
    asked: dict[str, tuple[int, str]] = {}
    groups = {g.name: g for g in problem.groups}
    for name, width in budget.widths:
        matching = [g for g in problem.groups if any(fnmatchcase(maker, name) for maker in _makers(g))]
        if not matching:
            known = sorted({maker for g in problem.groups for maker in _makers(g)})
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[:5]
            raise PlanError(
                f"--widths {name}={width}: no layer of that name makes channels that may leave",
                fix=f"e.g. {', '.join(near)}; compress inspect says why others stay",
            )
        for group in matching:
            before = asked.setdefault(group.name, (width, name))
            if before[0] != width:
                raise PlanError(
                    f"--widths {name}={width} and {before[1]}={before[0]} are the same channels, those of {group.name}",
                    fix="ask for one width: layers of a residual stream have it in common",
                )
    gone = [_least(groups[name], width, said, problem) for name, (width, said) in asked.items()]
    channels = np.concatenate(gone)
    if not len(channels):
        raise PlanError(
            "nothing would be removed: all layers have the widths of --widths", fix="ask for fewer channels"
        )
    return Choice(channels, sum(g.size for g in problem.free))


def _makers(group: Group) -> set[str]:
    """The layers that make the group's channels, and the names of their parameters."""
    return {name for m in group.members if m.produces for name in (m.parameter, m.parameter.rpartition(".")[0])}


def _least(group: Group, width: int, name: str, problem: Problem) -> np.ndarray:
    if group.name not in problem.scores:
        raise PlanError(f"the importance cannot judge {name}", fix="use --importance l2")
    if width > group.size:
        raise PlanError(f"--widths {name}={width}: it has only {group.size} channels", fix="ask for at most so many")
    order = np.argsort(problem.scores[group.name], kind="stable")
    return group.labels[order[: group.size - width]]


@choose.register
def choose_dead(budget: DropDead, problem: Problem) -> Choice:
    """Let leave what never varies where it is read: scores are ranges, and zero is dead. One channel a group stays.

    Raises PlanError where there is none.
    """
    del budget
    gone, notes = [], []
    for group in problem.free:
        scores = problem.scores[group.name]
        dead = np.flatnonzero(scores == 0)
        if len(dead) == group.size:
            notes.append(f"all {group.size} channels of {group.name} are dead: one stays, since no layer may be empty")
            dead = dead[1:]
        gone.append(group.labels[dead])
    channels = np.concatenate([np.zeros(0, np.int64), *gone])
    if not len(channels):
        raise PlanError(
            "no channel is dead: each varies over the calibration inputs", fix="remove some by --percent or --macs"
        )
    return Choice(channels, sum(g.size for g in problem.free), tuple(notes))
