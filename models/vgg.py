"""VGG with BatchNorm for small images, built from a list of widths (Simonyan & Zisserman, arXiv:1409.1556).

A width in `cfg` is a 3x3 convolution with BatchNorm and ReLU, "M" halves the image. The lists below halve it four times
and the mean over what is left goes to one Linear, so that 32x32 ends as 2x2 and 28x28 as 1x1: both work unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

Cfg = Sequence[int | str]

CFG_11: Cfg = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512)
CFG_13: Cfg = (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512)
CFG_16: Cfg = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
CFG_19: Cfg = (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4)


class VGG(nn.Module):
    """A chain of convolutions, mean over the pixels, one Linear: (N, C, H, W) -> (N, classes); H, W >= 16."""

    def __init__(self, cfg: Cfg, num_classes: int, in_channels: int) -> None:
        """Build the layers that `cfg` lists."""
        super().__init__()
        widths = [entry for entry in cfg if isinstance(entry, int)]
        self.features = nn.Sequential(*_layers(cfg, in_channels))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


def _layers(cfg: Cfg, channels: int) -> Iterator[nn.Module]:
    for entry in cfg:
        if isinstance(entry, int):
            # BatchNorm subtracts the mean, so a bias before it would have no effect.
            yield nn.Conv2d(channels, entry, 3, padding=1, bias=False)
            yield nn.BatchNorm2d(entry)
            yield nn.ReLU(inplace=True)
            channels = entry
        elif entry == "M":
            yield nn.MaxPool2d(2)
        else:
            raise ValueError(f'cfg holds {entry!r}: write widths and "M"')


def vgg11(*, num_classes: int = 10, in_channels: int = 3, cfg: Cfg = CFG_11) -> VGG:
    """8 convolutions."""
    return VGG(cfg, num_classes, in_channels)


def vgg13(*, num_classes: int = 10, in_channels: int = 3, cfg: Cfg = CFG_13) -> VGG:
    """10 convolutions."""
    return VGG(cfg, num_classes, in_channels)


def vgg16(*, num_classes: int = 10, in_channels: int = 3, cfg: Cfg = CFG_16) -> VGG:
    """13 convolutions."""
    return VGG(cfg, num_classes, in_channels)


def vgg19(*, num_classes: int = 10, in_channels: int = 3, cfg: Cfg = CFG_19) -> VGG:
    """16 convolutions, the network of the network-slimming paper."""
    return VGG(cfg, num_classes, in_channels)
