"""Torch-Pruning 1.6.1 at a budget of MACs, in its own iterative loop, with each of its criteria and scopes.

One loop from the whole network down gives a network at every target on its way, as its reproduction scripts do:
`pruner.step()` until the MACs are at most the target, with gradients taken anew before every step where a criterion
wants them (from labels, which the other side of the comparison never sees).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch_pruning as tp
from accuracy_networks import Attention
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 100  # of the way from all channels to none
GRADIENTS = 64  # inputs for criteria that want gradients, before every step
SINGLE = 16  # the same, one by one
SCOPES = ("local", "global", "isomorphic")


def criteria() -> dict[str, Callable[[], Any]]:
    """Every criterion of Torch-Pruning 1.6.1 that needs no training of its own."""
    i = tp.importance
    return {
        "l1": lambda: i.GroupMagnitudeImportance(p=1),
        "l2": lambda: i.GroupMagnitudeImportance(p=2),
        "l2-first": lambda: i.GroupMagnitudeImportance(p=2, normalizer=None, group_reduction="first"),
        "bn": i.BNScaleImportance,
        "lamp": i.LAMPImportance,
        "fpgm": i.FPGMImportance,
        "taylor": i.GroupTaylorImportance,
        "hessian": i.GroupHessianImportance,
        "obdc": lambda: i.OBDCImportance(num_classes=10),
        "activation": i.ActivationImportance,
        "random": i.RandomImportance,
    }


def cuts(
    network: nn.Module, criterion: str, scope: str, targets: list[float], data: tuple[Tensor, Tensor]
) -> Iterator[tuple[float, nn.Module, float]]:
    """Yield (target, network, fraction of the MACs) at every target that the loop reaches, largest first."""
    torch.manual_seed(0)
    model = copy.deepcopy(network).eval()
    x = data[0][:1]
    importance = criteria()[criterion]()
    heads = {m.qkv: m.num_heads for m in model.modules() if isinstance(m, Attention)}
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    places = [(p, 2) for name, p in model.named_parameters() if name == "places"]
    pruner = tp.pruner.BasePruner(
        model,
        x,
        importance=importance,
        global_pruning=scope != "local",
        isomorphic=scope == "isomorphic",
        pruning_ratio=1.0,
        iterative_steps=STEPS,
        ignored_layers=[last],
        num_heads=heads,
        in_channel_groups={},
        out_channel_groups={},
        unwrapped_parameters=places or None,
    )
    whole = tp.utils.count_ops_and_params(model, x)[0]
    waiting = sorted(targets, reverse=True)
    for _ in range(STEPS):
        _prepare(model, importance, data)
        pruner.step()
        for m in model.modules():
            if isinstance(m, Attention):
                m.num_heads = pruner.num_heads[m.qkv]
                m.head_dim = m.qkv.out_features // (3 * m.num_heads)
        share = tp.utils.count_ops_and_params(model, x)[0] / whole
        while waiting and share <= waiting[0]:
            model.zero_grad(set_to_none=True)
            yield waiting.pop(0), copy.deepcopy(model), share
        if not waiting:
            return


def _hooked(model: nn.Module, importance: Any) -> None:
    """What `_prepare_model` of the criterion does, which fails on networks without attention."""
    importance._clear_buffer()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            importance.modules.append(layer)
            layer.register_forward_pre_hook(importance._save_input)
            layer.register_full_backward_hook(importance._save_grad_output)


def _prepare(model: nn.Module, importance: Any, data: tuple[Tensor, Tensor]) -> None:
    """Give the criterion the gradients or activations that it asks for."""
    x, y = data[0][:GRADIENTS], data[1][:GRADIENTS]
    if isinstance(importance, tp.importance.OBDCImportance):
        _hooked(model, importance)
        model.zero_grad()
        F.cross_entropy(model(x.clone().requires_grad_(True)), y).backward()
        importance.step()
        importance._rm_hooks(model)
    elif isinstance(importance, tp.importance.GroupHessianImportance):
        importance.zero_grad()
        for loss in F.cross_entropy(model(x[:SINGLE]), y[:SINGLE], reduction="none"):
            model.zero_grad()
            loss.backward(retain_graph=True)
            importance.accumulate_grad(model)
    elif isinstance(importance, tp.importance.GroupTaylorImportance):
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
    elif isinstance(importance, tp.importance.ActivationImportance):
        with torch.no_grad(), importance.compute_importance(model):
            model(x)


@torch.no_grad()
def recalibrated(network: nn.Module, images: Tensor) -> nn.Module:
    """A copy whose BatchNorm statistics are the cumulative averages over the images, in training mode."""
    model = copy.deepcopy(network)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    for batch in images.split(250):
        model(batch)
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()
