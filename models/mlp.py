"""A multilayer perceptron for 28x28 images, 784-200-200-10: the outputs of a Linear are channels too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """(N, C, 28, 28) or (N, C * 784) -> (N, classes)."""

    def __init__(self, hidden: Sequence[int], num_classes: int, in_channels: int) -> None:
        """Build a Linear to every width in `hidden`, then one to the classes."""
        super().__init__()
        widths = (in_channels * 28 * 28, *hidden, num_classes)
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        logits: Tensor = self.layers[-1](x)
        return logits


def mlp(*, num_classes: int = 10, in_channels: int = 1, cfg: Sequence[int] = (200, 200)) -> MLP:
    """Hidden widths 200, 200 unless `cfg` says otherwise."""
    return MLP(cfg, num_classes, in_channels)
