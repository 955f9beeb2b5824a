"""A network that tells whether two 28x28 images, stacked as two input channels, show the same class."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class PairNet(nn.Module):
    """(N, 2, 28, 28) -> (N, 2): logits of "different" and "same"."""

    def __init__(self, widths: Sequence[int], num_classes: int, in_channels: int, dropout: float) -> None:
        """`widths` holds the outputs of the three convolutions; three poolings leave 3x3 pixels."""
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(in_channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.conv3 = nn.Conv2d(second, third, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(third)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.fc1 = nn.Linear(third * 3 * 3, 256)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(256, 64)
        self.fc3 = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = F.max_pool2d(self.relu1(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(self.relu2(self.bn2(self.conv2(x))), 2)
        x = F.max_pool2d(self.relu3(self.bn3(self.conv3(x))), 2)
        x = self.dropout(F.relu(self.fc1(x.flatten(1))))
        logits: Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


def pairnet(
    *, num_classes: int = 2, in_channels: int = 2, cfg: Sequence[int] = (32, 64, 128), dropout: float = 0.5
) -> PairNet:
    """Widths 32, 64, 128 unless `cfg` says otherwise."""
    return PairNet(cfg, num_classes, in_channels, dropout)
