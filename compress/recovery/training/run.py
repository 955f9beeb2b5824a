"""The moving parts of a training, and how they become plain data and come back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compress.recovery.training.judging import Score
from compress.recovery.training.team import Team


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """What an epoch reached: mean training loss in nats, the held-out score (None: not judged), the last rate."""

    number: int
    loss: float
    score: Score | None
    lr: float


@dataclass(slots=True)
class Run:
    """What changes while a network trains, besides its weights; `kept` is the number of the best epoch."""

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: dict[str, Tensor] | None
    step: int = 0
    resumed: int = 0
    loss: float = 0.0
    epochs: list[Epoch] = field(default_factory=list)
    before: Score | None = None
    best: Score | None = None
    best_state: dict[str, Tensor] | None = None
    kept: int = 0


def as_data(module: nn.Module, run: Run, generators: list[dict[str, Tensor]]) -> dict[str, Any]:
    """Return everything that a later run needs, plain values and tensors; `generators` are every process's own."""

    def score(found: Score | None) -> list[float] | None:
        """As plain numbers."""
        return None if found is None else [found.right, found.loss]

    return {
        "step": run.step,
        "loss": run.loss,
        "module": module.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "average": run.average,
        "best": score(run.best),
        "before": score(run.before),
        "best_state": run.best_state,
        "kept": run.kept,
        "epochs": [[e.number, e.loss, score(e.score), e.lr] for e in run.epochs],
        "random": generators,
    }


def take_up(module: nn.Module, run: Run, data: dict[str, Any], team: Team) -> None:
    """Put what `as_data` returned back into `module` and `run`, and into PyTorch's random numbers."""

    def score(found: list[float] | None) -> Score | None:
        """As a Score again."""
        return None if found is None else Score(*found)

    module.load_state_dict(data["module"])
    run.optimizer.load_state_dict(data["optimizer"])
    if data["scaler"]:
        run.scaler.load_state_dict(data["scaler"])
    run.step = run.resumed = data["step"]
    run.loss, run.kept = data["loss"], data["kept"]
    run.best, run.before = score(data["best"]), score(data["before"])
    run.average, run.best_state = (_on(data[key], team.device) for key in ("average", "best_state"))
    run.epochs = [Epoch(number=n, loss=loss, score=score(s), lr=lr) for n, loss, s, lr in data["epochs"]]
    if len(data["random"]) == team.size:  # another number of processes draws other numbers (dropout)
        _set_random_state(data["random"][team.rank])


def _on(state: dict[str, Tensor] | None, device: torch.device) -> dict[str, Tensor] | None:
    return None if state is None else {name: tensor.to(device) for name, tensor in state.items()}


def copied(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors, copied."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def random_state() -> dict[str, Tensor]:
    """Return the state of PyTorch's random numbers."""
    found = {"cpu": torch.get_rng_state()}
    return {**found, "cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else found


def _set_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
