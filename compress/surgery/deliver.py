"""What the user gets: their own module where its code follows the cut, the rewritten graph otherwise; always verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx, nn

from compress.core.errors import ExactnessError
from compress.core.types import Plan, Verdict
from compress.graph.analyse import Analysis
from compress.surgery.module import cut_module
from compress.surgery.program import cut_graph, graph_of
from compress.surgery.verify import verify as check


@dataclass(frozen=True, slots=True)
class Delivered:
    """The cut network; `own` tells whether it is the user's own class, `why` how that came; `verdict` None if unchecked."""

    module: nn.Module
    own: bool
    why: str
    verdict: Verdict | None


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

    `dead` are the labels that the plan takes away. `as_graph` skips the attempt with the user's own class. Raises
    ExactnessError where no form of the cut network computes what the masked original computes, TraceError where a
    graph is needed and the network cannot be exported.
    """
    why = "it was loaded as a graph" if isinstance(module, fx.GraphModule) else "as saved"
    if not as_graph and not isinstance(module, fx.GraphModule):
        cut = cut_module(module, example, analysis, dead)
        if cut.why_not is None:
            verdict = check(module, cut.module, example, analysis, dead) if verify else None
            if verdict is None or verdict.exact:
                changed = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in list(cut.repaired.items())[:4])
                more = f" and {len(cut.repaired) - 4} more" if len(cut.repaired) > 4 else ""
                return Delivered(cut.module, True, f"attributes repaired: {changed}{more}" if changed else "", verdict)
            why = f"its code does not follow the cut: the result differs by {verdict.max_relative_error:.2g}"
        else:
            why = f"its code does not follow the cut: {cut.why_not}"
    graph = graph_of(module, example, dynamic_batch=dynamic_batch)
    rewritten, _ = cut_graph(graph, example, plan)
    verdict = check(module, rewritten, example, analysis, dead) if verify else None
    if verdict is not None and not verdict.exact:
        raise ExactnessError(
            f"the cut network differs from the masked original by {verdict.max_relative_error:.3g} of the output's size, "
            f"more than {verdict.tolerance:g}; nothing was written",
            fix="protect the layers in question with --keep, and report this network",
        )
    return Delivered(rewritten, False, why, verdict)
