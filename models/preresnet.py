"""Pre-activation ResNet of bottlenecks with channel selection.

He et al., arXiv:1603.05027; the selection is from Liu et al., arXiv:1708.06519. A block adds to a stream that keeps its
width: BN - select - ReLU - conv 1x1 - BN - ReLU - conv 3x3 - BN - ReLU - conv 1x1.
The selection passes on the channels that the block's first convolution reads. depth = 9 n + 2 for n blocks a stage.
`cfg` lists three widths for each block (channels selected, first and second convolution), then the number of channels
selected before the Linear: 9 n + 1 numbers. The default selects all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelSelection(nn.Module):
    """Pass on the channels listed in the buffer `kept`, ascending: (N, C, H, W) -> (N, len(kept), H, W)."""

    kept: Tensor

    def __init__(self, channels: int, selected: int) -> None:
        """Select the first `selected`; which ones comes with the weights. Selecting all needs no buffer."""
        super().__init__()
        if not 1 <= selected <= channels:
            raise ValueError(f"cfg selects {selected} of {channels} channels")
        self.selects = selected < channels
        if self.selects:
            self.register_buffer("kept", torch.arange(selected))

    def forward(self, x: Tensor) -> Tensor:
        """Return the selected channels in order."""
        return x.index_select(1, self.kept) if self.selects else x


class Bottleneck(nn.Module):
    """(N, I, H, W) -> (N, O, H/stride, W/stride), where the shortcut has no BatchNorm."""

    def __init__(self, inputs: int, outputs: int, stride: int, widths: Sequence[int]) -> None:
        """`widths` is (selected, out of conv1, out of conv2)."""
        super().__init__()
        selected, first, second = widths
        self.bn1 = nn.BatchNorm2d(inputs)
        self.select = ChannelSelection(inputs, selected)
        self.conv1 = nn.Conv2d(selected, first, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(second)
        self.conv3 = nn.Conv2d(second, outputs, 1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return residual + shortcut."""
        out = self.conv1(F.relu(self.select(self.bn1(x))))
        out = self.conv2(F.relu(self.bn2(out)))
        out = self.conv3(F.relu(self.bn3(out)))
        total: Tensor = out + self.shortcut(x)
        return total


class PreResNet(nn.Module):
    """Stem of 16 channels, three stages of streams (64, 128, 256), selection, Linear: (N, C, H, W) -> (N, classes)."""

    def __init__(self, depth: int, num_classes: int, in_channels: int, cfg: Sequence[int] | None) -> None:
        """Build (depth - 2) / 9 blocks a stage; every stage but the first halves the image."""
        super().__init__()
        blocks, rest = divmod(depth - 2, 9)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 9 n + 2, got {depth}")
        widths = list(cfg) if cfg is not None else default_cfg(blocks)
        if len(widths) != 9 * blocks + 1:
            raise ValueError(f"cfg has {len(widths)} widths; depth {depth} needs {9 * blocks + 1}")
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        stages, inputs = [], 16
        for stage, outputs in enumerate((64, 128, 256)):
            chain = []
            for block in range(blocks):
                at = 3 * (stage * blocks + block)
                stride = 2 if stage and not block else 1
                chain.append(Bottleneck(inputs, outputs, stride, widths[at : at + 3]))
                inputs = outputs
            stages.append(nn.Sequential(*chain))
        self.layer1, self.layer2, self.layer3 = stages
        self.bn = nn.BatchNorm2d(256)
        self.select = ChannelSelection(256, widths[-1])
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        x = F.relu(self.select(self.bn(x)))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def default_cfg(blocks: int) -> list[int]:
    """Return the widths of the network that has lost nothing, `blocks` blocks a stage."""
    cfg, inputs = [], 16
    for inner in (16, 32, 64):
        cfg += [inputs, inner, inner] + [4 * inner, inner, inner] * (blocks - 1)
        inputs = 4 * inner
    return [*cfg, inputs]


def preresnet(
    *, depth: int = 164, num_classes: int = 10, in_channels: int = 3, cfg: Sequence[int] | None = None
) -> PreResNet:
    """Any depth = 9 n + 2."""
    return PreResNet(depth, num_classes, in_channels, cfg)


def preresnet164(*, num_classes: int = 10, in_channels: int = 3, cfg: Sequence[int] | None = None) -> PreResNet:
    """3 stages x 18 blocks."""
    return PreResNet(164, num_classes, in_channels, cfg)


def preresnet29(*, num_classes: int = 10, in_channels: int = 3, cfg: Sequence[int] | None = None) -> PreResNet:
    """3 stages x 3 blocks."""
    return PreResNet(29, num_classes, in_channels, cfg)
