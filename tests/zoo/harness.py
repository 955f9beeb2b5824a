"""What every proof needs: random weights, random plans, and the cut compared with the masked original."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import compress.graph.rules  # noqa: F401 - the rules enter themselves into the table
from compress.core.choosing import Attention
from compress.core.types import Plan
from compress.graph.analyse import Analysis, analyse
from compress.surgery.cut import dead_labels, plan_of
from compress.surgery.module import cut_module
from compress.surgery.program import cut_graph, graph_of
from compress.surgery.verify import verify

Example = tuple[Any, ...]


class Net(nn.Module):
    """A network from named parts and a function `run(net, *inputs)`; numbers among the parts are plain attributes."""

    def __init__(self, run: Callable[..., Any], /, **parts: Any) -> None:
        """Take the parts in order, so that parameters are named after them."""
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._run = run

    def forward(self, *inputs: Any) -> Any:
        """Run the function."""
        return self._run(self, *inputs)


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and running statistic values that nothing can hide behind: no zeros, no ones."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for parameter in module.parameters():
        if parameter.is_floating_point() and parameter.dim() < 2:
            uniform(parameter, 0.3, 1.2)
        elif parameter.is_floating_point():
            fan = max(parameter[0].numel(), 1)
            uniform(parameter, -1.0 / fan**0.5, 1.2 / fan**0.5)
    for name, buffer in module.named_buffers():
        if "running_mean" in name:
            uniform(buffer, -0.3, 0.3)
        elif "running_var" in name:
            uniform(buffer, 0.5, 1.5)
    return module.eval()


def random_channels(analysis: Analysis, rng: np.random.Generator, share: float = 0.4) -> list[int]:
    """Channels to take from every prunable group, leaving at least one in each."""
    gone: list[int] = []
    for group in analysis.prunable:
        count = min(group.size - 1, max(1, round(group.size * share * rng.uniform(0.3, 1.7))))
        if count > 0:
            gone += rng.choice(group.labels, count, replace=False).tolist()
    return gone


@dataclass(frozen=True)
class Outcome:
    """How a cut went: the errors are relative to the masked original in float64, None where it was not made."""

    analysis: Analysis
    plan: Plan
    module_error: float | None
    why_not: str | None
    graph_error: float | None
    repaired: dict[str, Any]
    module: nn.Module | None

    @property
    def worst(self) -> float:
        """The larger of the errors; NaN counts as infinite."""
        errors = [e for e in (self.module_error, self.graph_error) if e is not None]
        return max((float("inf") if e != e else e for e in errors), default=0.0)  # noqa: PLR0124


def cut_both(
    module: nn.Module,
    example: Example,
    *,
    attention: Attention = Attention.HEADS,
    seed: int = 0,
    graph: bool = False,
    share: float = 0.4,
    whole: bool = True,
) -> Outcome:
    """Cut a random share of every prunable group and compare; `graph` also cuts the exported graph.

    `whole` False exports it for the example's batch size only and compares it with the masked module alone.
    """
    analysis = analyse(module, example, attention=attention)
    plan = plan_of(analysis, random_channels(analysis, np.random.default_rng(seed), share))
    dead = dead_labels(analysis, plan)
    cut = cut_module(module, example, analysis, dead)
    module_error = None
    if cut.why_not is None:
        module_error = verify(module, cut.module, example, analysis, dead).max_relative_error
    graph_error = None
    if graph or cut.why_not is not None:
        exported = graph_of(module, example, dynamic_batch=whole)
        small, its = cut_graph(exported, example, plan)
        graph_error = verify(module, small, example, analysis, dead).max_relative_error
        if whole:
            against_graph = verify(exported, small, example, its, dead_labels(its, plan))
            graph_error = max(graph_error, against_graph.max_relative_error)
    kept = cut.module if cut.why_not is None else None
    return Outcome(analysis, plan, module_error, cut.why_not, graph_error, dict(cut.repaired), kept)


def leaving_with(analysis: Analysis, parameter: str, dim: int, index: int) -> dict[str, tuple[int, ...]]:
    """What leaves with one slice: "parameter:dim" -> removed indices."""
    labels = analysis.parameters[parameter][dim]
    assert labels is not None, f"{parameter} has nothing to lose along {dim}"
    plan = plan_of(analysis, [int(analysis.component[labels[index]])])
    return {
        f"{name}:{d}": tuple(sorted(set(range(analysis.shapes[name][d])) - set(kept)))
        for name, dims in plan.keep.items()
        for d, kept in dims.items()
    }


@dataclass(frozen=True)
class Snapshot:
    """Everything about a module that a cut must leave alone."""

    tensors: dict[str, Tensor]
    identities: dict[str, int]
    training: tuple[bool, ...]
    gradients: tuple[bool, ...]
    hooks: int
    attributes: str

    @staticmethod
    def of(module: nn.Module) -> Snapshot:
        """Copy what could change."""
        named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks")
        plain = {
            (path, key): repr(value)
            for path, inner in module.named_modules()
            for key, value in vars(inner).items()
            if isinstance(value, (int, float, str, tuple)) and not isinstance(value, Tensor)
        }
        return Snapshot(
            {name: copy.deepcopy(tensor.detach()) for name, tensor in named.items()},
            {name: id(tensor) for name, tensor in named.items()},
            tuple(m.training for m in module.modules()),
            tuple(p.requires_grad for p in module.parameters()),
            sum(len(getattr(m, table)) for m in module.modules() for table in tables),
            repr(plain),
        )

    def same(self, module: nn.Module) -> bool:
        """Whether the module is bit for bit what it was."""
        now = Snapshot.of(module)
        return (
            self.tensors.keys() == now.tensors.keys()
            and all(torch.equal(tensor, now.tensors[name]) for name, tensor in self.tensors.items())
            and (self.identities, self.training, self.gradients) == (now.identities, now.training, now.gradients)
            and (self.hooks, self.attributes) == (now.hooks, now.attributes)
        )
