"""DenseNet-40 with channel selection (Huang et al., arXiv:1608.06993; Liu et al., arXiv:1708.06519).

A layer appends `growth` channels to everything before it: x -> [x, conv 3x3(ReLU(select(BN(x))))]. There are three
dense blocks, and between them a transition BN - select - ReLU - conv 1x1 - mean pool that keeps the width. depth =
3 n + 4 for n layers a block. `cfg` lists how many channels the selection behind each BatchNorm passes on, in order:
3 n layers, a transition after each of the first two blocks, and the one before the Linear, 3 n + 3 numbers. The default
selects all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelSelection(nn.Module):
    """As in preresnet.py, repeated so that this file can be loaded alone: (N, C, H, W) -> (N, len(kept), H, W)."""

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


class DenseLayer(nn.Module):
    """(N, I, H, W) -> (N, I + growth, H, W)."""

    def __init__(self, inputs: int, selected: int, growth: int) -> None:
        """`selected` of the `inputs` channels enter the convolution."""
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.select = ChannelSelection(inputs, selected)
        self.conv = nn.Conv2d(selected, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with the new channels behind it."""
        return torch.cat([x, self.conv(F.relu(self.select(self.bn(x))))], dim=1)


class Transition(nn.Module):
    """(N, C, H, W) -> (N, C, H/2, W/2)."""

    def __init__(self, channels: int, selected: int) -> None:
        """`selected` of the channels enter the convolution."""
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.select = ChannelSelection(channels, selected)
        self.conv = nn.Conv2d(selected, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the channels and halve the image."""
        return F.avg_pool2d(self.conv(F.relu(self.select(self.bn(x)))), 2)


class DenseNet(nn.Module):
    """Stem of 2 growth channels, three dense blocks, selection, Linear: (N, C, H, W) -> (N, classes)."""

    def __init__(self, depth: int, growth: int, num_classes: int, in_channels: int, cfg: Sequence[int] | None) -> None:
        """Build (depth - 4) / 3 layers a block."""
        super().__init__()
        layers, rest = divmod(depth - 4, 3)
        if rest or layers < 1:
            raise ValueError(f"depth must be 3 n + 4, got {depth}")
        widths = list(cfg) if cfg is not None else default_cfg(layers, growth)
        if len(widths) != 3 * layers + 3:
            raise ValueError(f"cfg has {len(widths)} widths; depth {depth} needs {3 * layers + 3}")
        channels = 2 * growth + 3 * layers * growth
        self.conv1 = nn.Conv2d(in_channels, 2 * growth, 3, padding=1, bias=False)
        self.features = nn.Sequential(*_features(layers, growth, widths))
        self.bn = nn.BatchNorm2d(channels)
        self.select = ChannelSelection(channels, widths[-1])
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = F.relu(self.select(self.bn(self.features(self.conv1(x)))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _features(layers: int, growth: int, widths: Sequence[int]) -> Iterator[nn.Module]:
    channels = 2 * growth
    selected = iter(widths)
    for block in range(3):
        for _ in range(layers):
            yield DenseLayer(channels, next(selected), growth)
            channels += growth
        if block < 2:
            yield Transition(channels, next(selected))


def default_cfg(layers: int, growth: int) -> list[int]:
    """Return the widths of the network that has lost nothing, `layers` layers a block."""
    # A transition reads the same channels as the first layer of the block after it.
    return [2 * growth + growth * (block * layers + i) for block in range(3) for i in range(layers + 1)]


def densenet40(
    *, num_classes: int = 10, in_channels: int = 3, growth: int = 12, cfg: Sequence[int] | None = None
) -> DenseNet:
    """3 blocks x 12 layers."""
    return DenseNet(40, growth, num_classes, in_channels, cfg)
