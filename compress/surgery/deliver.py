"""What the user gets: their own module where its code follows the cut, the rewritten graph otherwise; verified."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import numpy as np
from torch import fx, nn

from compress.core.errors import CompressError, ExactnessError, TraceError, first_line
from compress.core.types import Plan, Verdict
from compress.graph.analyse import Analysis
from compress.surgery.agreement import Progress
from compress.surgery.module import cut_module
from compress.surgery.program import cut_graph, fixed_batch, graph_of
from compress.surgery.verify import verify as check


@dataclass(frozen=True, slots=True)
class Delivered:
    """The cut network: `own` if it is the user's class, `why` (not) so; `verdict` None if unchecked.

    `batch` is the only batch size that its graph takes; None where it takes any, or is as the network was.
    """

    module: nn.Module
    own: bool
    why: str
    verdict: Verdict | None
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Why the user's own class cannot be cut so; `parts` says where its code parts from the graph."""

    why: str
    parts: Progress | None = None


def own_class(
    module: nn.Module, example: tuple[Any, ...], analysis: Analysis, dead: np.ndarray, *, verify: bool = True
) -> Delivered | Refused:
    """Return the user's own class without the dead labels, or why there is none; the input module is left untouched."""
    if isinstance(module, fx.GraphModule):
        return Refused("it was loaded as a graph")

    def judged(cut: nn.Module) -> Verdict | str:
        """Compare with the masked original; in words what is wrong."""
        try:
            verdict = check(module, cut, example, analysis, dead)
        except CompressError:
            raise
        except Exception as error:  # noqa: BLE001 - what runs on shapes alone may still refuse real tensors
            return first_line(error)
        return verdict if verdict.exact else f"the result differs by {verdict.max_relative_error:.2g}"

    cut = cut_module(module, example, analysis, dead, lambda cut: isinstance(judged(cut), Verdict))
    if cut.why_not is not None:
        return Refused(f"its code does not follow the cut: {cut.why_not}", cut.parts)
    verdict = judged(cut.module) if verify else None
    if isinstance(verdict, str):
        return Refused(f"its code does not follow the cut: {verdict}")
    changed = ", ".join(
        f"{name} {shorten(str(old), 60)} -> {shorten(str(new), 60)}"
        for name, (old, new) in list(cut.repaired.items())[:4]
    )
    more = f" and {len(cut.repaired) - 4} more" if len(cut.repaired) > 4 else ""
    return Delivered(cut.module, True, f"attributes repaired: {changed}{more}" if changed else "", verdict)


def as_rewritten(
    module: nn.Module,
    example: tuple[Any, ...],
    analysis: Analysis,
    plan: Plan,
    dead: np.ndarray,
    *,
    why: str,
    verify: bool = True,
    dynamic_batch: bool = True,
) -> Delivered:
    """Return the network as a rewritten graph without the dead labels; `why` is told with it.

    Raises ExactnessError where it does not compute what the masked original computes, TraceError where it cannot be
    exported.
    """
    try:
        graph = graph_of(module, example, dynamic_batch=dynamic_batch)
    except TraceError as error:
        raise TraceError(f"{error.what}; and the own class cannot be delivered: {why}", fix=error.fix) from error
    rewritten, _ = cut_graph(graph, example, plan)
    verdict = check(module, rewritten, example, analysis, dead) if verify else None
    if verdict is not None and not verdict.exact:
        raise ExactnessError(
            f"the cut network differs from the masked original by {verdict.max_relative_error:.3g} of the output's "
            f"size, more than {verdict.tolerance:g}; nothing was written",
            fix="protect the layers in question with --keep, and report this network",
        )
    batch = fixed_batch(graph) if dynamic_batch else None
    if batch is not None:
        why += f"; its graph takes batches of {batch} only, since the code makes a number of their size (`len(x)`)"
    return Delivered(rewritten, False, why, verdict, batch)


def deliver(
    module: nn.Module,
    example: tuple[Any, ...],
    analysis: Analysis,
    plan: Plan,
    dead: np.ndarray,
    *,
    verify: bool = True,
    as_graph: bool = False,
    dynamic_batch: bool = True,
) -> Delivered:
    """Cut `module` as planned and check it against the masked original; the input module is left untouched.

    `dead` are the labels that the plan takes away. `as_graph` skips the attempt with the user's own class. Raises as
    `as_rewritten` does.
    """
    own = Refused("as saved") if as_graph else own_class(module, example, analysis, dead, verify=verify)
    if isinstance(own, Delivered):
        return own
    return as_rewritten(module, example, analysis, plan, dead, why=own.why, verify=verify, dynamic_batch=dynamic_batch)
