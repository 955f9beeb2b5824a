"""Six small trained networks for Fashion-MNIST: made and trained here, kept in a folder that git ignores.

python benchmarks/accuracy_networks.py [--only NAME] trains what is not there yet; `trained(name)` reads it back.

Recipe, the same for all: the first 55,000 training images (the last 5,000 are held out for development), cross-entropy,
batches of 128, random crops and mirrors, bfloat16 autocast, SGD with Nesterov momentum (AdamW for the transformer),
one cycle of the learning rate. The stems halve the image, so that an epoch takes seconds on two cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "models"))

import densenet  # noqa: E402
import resnet  # noqa: E402
import resnet_cifar  # noqa: E402
import vgg  # noqa: E402
from make_images import read_split  # noqa: E402
from train import augment  # noqa: E402

FOLDER = ROOT / "build" / "accuracy"
IMAGES = Path("/usr/share/datasets/fashion-mnist")
TRAINING = 55_000  # images that networks learn from; the rest of the 60,000 is held out for development
MEAN, STD = 0.2860, 0.3530  # of the training images
BLACK = -MEAN / STD


class Inverted(nn.Module):
    """Inverted residual (Sandler et al., arXiv:1801.04381): 1x1 wide, 3x3 depthwise, 1x1 narrow, (N, I, H, W) in."""

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int) -> None:
        """Add the input back where shapes allow."""
        super().__init__()
        hidden = inputs * factor
        self.adds = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, O, H / stride, W / stride)."""
        y: Tensor = self.body(x)
        return x + y if self.adds else y


class MobileNet(nn.Module):
    """Stem, inverted residuals, a last 1x1 convolution, mean over the pixels, Linear: (N, 1, 28, 28) -> (N, 10)."""

    def __init__(self) -> None:
        """Widths 16, 24, 40, 64, hidden layers four times as wide."""
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        plan = ((16, 24, 2), (24, 24, 1), (24, 40, 1), (40, 40, 1), (40, 64, 2), (64, 64, 1))
        self.blocks = nn.Sequential(*(Inverted(i, o, stride, 4) for i, o, stride in plan))
        self.last = nn.Sequential(nn.Conv2d(64, 192, 1, bias=False), nn.BatchNorm2d(192), nn.ReLU6())
        self.classifier = nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(self.last(self.blocks(self.stem(x))).mean((2, 3)))
        return logits


class Attention(nn.Module):
    """Multi-head self-attention: (N, T, C) -> (N, T, C)."""

    def __init__(self, width: int, heads: int) -> None:
        """One projection makes queries, keys and values."""
        super().__init__()
        self.num_heads = heads
        self.head_dim = width // heads
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the tokens."""
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale).transpose(1, 2)
        y = y.reshape(n, t, self.num_heads * self.head_dim)
        out: Tensor = self.proj(y)
        return out


class Block(nn.Module):
    """Pre-norm transformer block: (N, T, C) -> (N, T, C)."""

    def __init__(self, width: int, heads: int) -> None:
        """The hidden layer is four times as wide."""
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual stream."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return y


class ViT(nn.Module):
    """Patches of 7 x 7, learned places, blocks, mean over the 16 tokens, Linear: (N, 1, 28, 28) -> (N, 10)."""

    def __init__(self, width: int = 64, depth: int = 5, heads: int = 8) -> None:
        """Build `depth` blocks."""
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.places = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        logits: Tensor = self.classifier(self.norm(self.blocks(x)).mean(1))
        return logits


def _halved(network: nn.Module, stem: nn.Module) -> nn.Module:
    assert isinstance(stem, nn.Conv2d)
    stem.stride = (2, 2)
    return network


def _resnet20() -> nn.Module:
    network = resnet.resnet20(in_channels=1)
    return _halved(network, network.conv1)


def _resnet18() -> nn.Module:
    network = resnet_cifar.resnet18(in_channels=1, width=16)
    return _halved(network, network.conv1)


def _vgg() -> nn.Module:
    network = vgg.vgg11(in_channels=1, cfg=(32, 48, "M", 96, 96, "M", 128, 128))
    return _halved(network, network.features[0])


def _densenet() -> nn.Module:
    network = densenet.DenseNet(16, 12, 10, 1, None)
    return _halved(network, network.conv1)


@dataclass(frozen=True, slots=True)
class Kind:
    """How a network is built and trained."""

    build: Callable[[], nn.Module]
    epochs: int
    rate: float
    adam: bool = False


NETWORKS = {
    "resnet20": Kind(_resnet20, 3, 0.2),
    "resnet18": Kind(_resnet18, 5, 0.2),
    "vgg": Kind(_vgg, 6, 0.1),
    "mobilenet": Kind(MobileNet, 4, 0.2),
    "densenet": Kind(_densenet, 3, 0.2),
    "vit": Kind(ViT, 5, 2e-3, adam=True),
}


@cache
def images(split: str) -> tuple[Tensor, Tensor]:
    """Return normalised images (N, 1, 28, 28) float32 and labels (N,) of "train", "t10k"."""
    x, y = read_split(IMAGES, split)
    return ((torch.from_numpy(x.copy()).permute(0, 3, 1, 2).float() / 255) - MEAN) / STD, torch.from_numpy(y)


def steps_of(
    network: nn.Module, data: tuple[Tensor, Tensor], epochs: int, optimizer: Any, rates: Any, seed: int
) -> None:
    """Train in bfloat16 autocast on batches of 128, cropped and mirrored at random."""
    x, y = data
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for chosen in order[: len(order) // 128 * 128].split(128):
            # Padding is with the value of black, so that a crop looks like an image.
            batch = augment(x[chosen] - BLACK, 2, generator) + BLACK
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(network(batch).float(), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
    network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Return the percentage of images that `network` classifies right, in float32."""
    network.eval()
    pairs = zip(data[0].split(1000), data[1].split(1000), strict=True)
    return 100 * sum(int((network(x).argmax(1) == y).sum()) for x, y in pairs) / len(data[0])


def train(name: str) -> dict[str, Any]:
    """Train a network from scratch and return its checkpoint."""
    kind = NETWORKS[name]
    torch.manual_seed(0)
    network = kind.build()
    x, y = images("train")
    data = x[:TRAINING], y[:TRAINING]
    optimizer = (
        torch.optim.AdamW(network.parameters(), kind.rate, weight_decay=0.05)
        if kind.adam
        else torch.optim.SGD(network.parameters(), kind.rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    )
    steps = kind.epochs * (TRAINING // 128)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, kind.rate, steps, pct_start=0.2)
    start = time.perf_counter()
    steps_of(network, data, kind.epochs, optimizer, rates, seed=0)
    seconds = time.perf_counter() - start
    held = accuracy(network, (x[TRAINING:], y[TRAINING:]))
    return {"state": network.state_dict(), "held_out": held, "seconds": seconds}


def trained(name: str) -> nn.Module:
    """Read a trained network back, in evaluation."""
    checkpoint = torch.load(FOLDER / f"{name}.pt", weights_only=True)
    network = NETWORKS[name].build()
    network.load_state_dict(checkpoint["state"])
    return network.eval()


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description="Train the networks of the accuracy benchmark.")
    parser.add_argument("--only", nargs="*", choices=tuple(NETWORKS))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in args.only or NETWORKS:
        path = FOLDER / f"{name}.pt"
        if not path.exists():
            checkpoint = train(name)
            torch.save(checkpoint, path)
            print(f"{name}: {checkpoint['held_out']:.2f} % held out, {checkpoint['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
