"""ResNet of three stages of BasicBlocks for small images (He et al., arXiv:1512.03385, section 4.2): depth = 6n + 2."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (N, I, H, W) -> (N, O, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Project the shortcut with a 1x1 convolution where the shape changes, pass it through otherwise."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(residual + shortcut)."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, three stages at widths (w, 2w, 4w), mean over the pixels, Linear: (N, C, H, W) -> (N, classes)."""

    def __init__(self, blocks: int, num_classes: int, in_channels: int, width: int) -> None:
        """Build `blocks` blocks a stage; every stage but the first halves the image."""
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.linear = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def resnet14(*, num_classes: int = 10, in_channels: int = 3, width: int = 16) -> ResNet:
    """3 stages x 2 blocks."""
    return ResNet(2, num_classes, in_channels, width)


def resnet20(*, num_classes: int = 10, in_channels: int = 3, width: int = 16) -> ResNet:
    """3 stages x 3 blocks."""
    return ResNet(3, num_classes, in_channels, width)


def resnet56(*, num_classes: int = 10, in_channels: int = 3, width: int = 16) -> ResNet:
    """3 stages x 9 blocks."""
    return ResNet(9, num_classes, in_channels, width)
