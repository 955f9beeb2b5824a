"""A small network for 28x28 images: three 3x3 convolutions, two poolings, one Linear over all pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class ConvNet(nn.Module):
    """(N, C, 28, 28) -> (N, classes); the Linear reads width x 7 x 7 numbers, 3136 by default."""

    def __init__(self, widths: Sequence[int], num_classes: int, in_channels: int) -> None:
        """`widths` holds the outputs of the three convolutions."""
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(in_channels, first, 3, padding=1)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.conv3 = nn.Conv2d(second, third, 3, padding=1)
        self.fc = nn.Linear(third * 7 * 7, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        logits: Tensor = self.fc(F.relu(self.conv3(x)).flatten(1))
        return logits


def convnet(*, num_classes: int = 10, in_channels: int = 1, cfg: Sequence[int] = (32, 64, 64)) -> ConvNet:
    """Widths 32, 64, 64 unless `cfg` says otherwise."""
    return ConvNet(cfg, num_classes, in_channels)
