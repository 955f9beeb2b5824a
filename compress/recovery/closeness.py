"""How near the outputs of two networks are, without labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from compress.graph.modules import quiet_module, set_mode
from compress.graph.trace import tensors_in


def distance(original: nn.Module, cut: nn.Module, inputs: Iterable[Tensor]) -> float:
    """Return sum |cut - original|^2 / sum |original|^2 over all floating-point outputs of all batches; 0 is alike."""
    apart = size = 0.0
    for batch in inputs:
        for want, have in zip(_outputs(original, batch), _outputs(cut, batch), strict=True):
            if want.is_floating_point():
                apart += float((have.double() - want.double()).square().sum())
                size += float(want.double().square().sum())
    return apart / size if size > 0 else apart


def _outputs(module: nn.Module, batch: Any) -> list[Tensor]:
    with quiet_module(module), torch.no_grad():
        set_mode(module, train=False)
        return tensors_in(module(batch.clone()))
