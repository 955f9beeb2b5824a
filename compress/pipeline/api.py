"""The same from Python: cut a module that is already in memory, look into a file, load one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compress.checkpoint import load as read_checkpoint
from compress.core.choosing import Attention, Scope
from compress.core.types import Plan
from compress.graph.analyse import Analysis, analyse
from compress.pipeline.inmemory import Result, cut_in_memory
from compress.pipeline.opening import opened
from compress.recovery.training.recipe import Optimizer, Precision


def slim(
    model: nn.Module, example_input: Tensor | tuple[Any, ...], percent: float | None = None, *,
    macs: float | str | None = None, params: float | str | None = None, size: float | str | None = None,
    latency: float | str | None = None, steps: int = 1,
    max_drop: float | None = None, min_agreement: float | None = None, time_budget: float | str | None = None,
    widths: Mapping[str, int] | str | None = None, drop_dead: bool | None = None, drop_blocks: str | int | None = None,
    scope: Scope | str = Scope.GLOBAL, importance: str | None = None, round_to: int | None = None,
    min_channels: int = 1, keep: Sequence[str] = (), ratio: Mapping[str, float] | None = None, max_ratio: float = 1.0,
    attention: Attention | str = Attention.HEADS, plan: Plan | None = None, submodule: str | None = None,
    calibration: Tensor | Iterable[Tensor] | None = None, labels: Tensor | None = None,
    data: Tensor | tuple[Tensor, Tensor] | None = None, recover: bool = True,
    finetune: int = 0, distill: int = 0, distill_features: bool = False,
    train: Tensor | tuple[Tensor, Tensor] | None = None, lr: float | None = None, batch_size: int | None = None,
    optimizer: Optimizer | str | None = None, precision: Precision | str = Precision.AUTO,
    channels_last: bool = False,
    batch: int = 1, seed: int = 0, verify: bool = True,
) -> Result:  # fmt: skip
    """Remove channels from `model` and return the smaller network; `model` itself is left untouched.

    `example_input` is one input, or a tuple of the positional ones, batch first. How much leaves is said once, by
    `percent` in [0, 1), the fraction of all channels (of each group's, with `scope="layer"`); or by what may be left,
    `macs`, `params`, `size` (of the ONNX file) or `latency` (in onnxruntime on this machine, of `batch` inputs a pass),
    as a fraction or a number; `steps` approaches it in so many cuts. Or by
    how good the result must be: `max_drop` points of top-1 at most, or `min_agreement` with the original, measured on
    `data` (inputs, or (inputs, labels)) within `time_budget` seconds; then `macs` is the least.
    Or by `widths` that stay ({"conv1": 8}), or `drop_dead`. `drop_blocks` reduces residual blocks to their shortcuts
    first: so many, the least missed on `calibration` or `data`, or those it names. `round_to=None` keeps widths at
    multiples of what kernels here block by. `keep` names what stays whole, `ratio` what loses its own fraction
    ({"layer3.*": 0.3}); no group loses more than `max_ratio`. `submodule` names the one part to cut. `plan` replays a
    cut.
    `calibration` are inputs without labels, batch first (one tensor, or batches): from them the cut network wins back
    what it lost, unless `recover` is False. Only `taylor` wants their `labels`, int64 (inputs,). `distill` and
    `finetune` are epochs of training after that, on `train`: inputs, or (inputs, labels); without it on the
    calibration inputs. A tenth of them is held out and decides whether the training is kept. `verify=False` leaves out
    the float64 check.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> result = slim(net, torch.randn(2, 4), percent=0.5, round_to=1)
    >>> result.model[0].out_features, net[0].out_features
    (4, 8)
    """
    given = dict(locals())
    return cut_in_memory(given.pop("model"), given.pop("example_input"), given)


def inspect(
    checkpoint: str | Path, *, arch: str | None = None, attention: Attention = Attention.HEADS, **options: Any
) -> Analysis:
    """Analyse the network in a file: its groups, what they hold, and why some must stay."""
    network, _ = opened(read_checkpoint(checkpoint, arch=arch, **options))
    return analyse(network.module, network.example, attention=attention)


def load(path: str | Path, *, arch: str | None = None, **options: Any) -> nn.Module:
    """Return the network in a file, whatever wrote it, as a trainable module; a saved cut is replayed."""
    return opened(read_checkpoint(path, arch=arch, **options))[0].module
