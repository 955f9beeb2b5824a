"""Random networks: an entry, a few random blocks, a head; the same number always makes the same network."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo import indexed_blocks  # noqa: F401 - its blocks enter themselves into both tables
from tests.zoo.blocks import IMAGE_BLOCKS, WIDTHS
from tests.zoo.harness import Net, randomised
from tests.zoo.token_blocks import TOKEN_BLOCKS

ENTRIES = (
    "image", "image", "image", "tokens", "words", "patches", "two images", "volume", "image and words", "signal",
)  # fmt: skip
HEADS = ("pooled", "flattened", "flattened", "hard view", "two", "nested", "tied", "dense", "dataclass", "first token")
LARGEST = 400  # elements of one example that a flattening head may read


@dataclass
class Answers:
    """What a network with two answers may return; it is known to the export, so that its graph can be cut too."""

    classes: Tensor
    places: tuple[Tensor, ...]


torch.export.register_dataclass(Answers, serialized_type_name="tests.Answers")


@dataclass(frozen=True)
class Generated:
    """A network, its example and the names of what it is made of."""

    module: nn.Module
    example: tuple[Tensor, ...]
    kinds: tuple[str, ...]


def generate(r: Random) -> Generated:
    """Make a network from the choices of `r`."""
    torch.manual_seed(r.randrange(2**31))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _generate(r)


def _generate(r: Random) -> Generated:
    kinds: list[str] = []
    entry = r.choice(ENTRIES)
    first, example = _entry(r, entry)
    kinds.append(f"entry: {entry}")
    blocks: list[nn.Module] = []
    with torch.no_grad():
        x = first.eval()(*example)
        for _ in range(r.randint(1, 5)):
            made = _block(r, x)
            if made is not None:
                name, module, x = made
                kinds.append(name)
                blocks.append(module)
        name, head = _head(r, x, first)
        kinds.append(f"head: {name}")
    net = Net(
        lambda n, *xs: n.head(_through(n.blocks, n.entry(*xs))), entry=first, blocks=nn.ModuleList(blocks), head=head
    )
    return Generated(randomised(net, r.randrange(2**31)), example, tuple(kinds))


def _through(blocks: Any, x: Tensor) -> Tensor:
    for module in blocks:
        x = module(x)
    return x


def _block(r: Random, x: Tensor) -> tuple[str, nn.Module, Tensor] | None:
    """A random block that fits `x`: (name, module, what it makes of x)."""
    images = x.dim() == 4
    table, width = (IMAGE_BLOCKS, x.shape[1]) if images else (TOKEN_BLOCKS, x.shape[2])
    if images and r.random() < 0.06:
        module: nn.Module = Net(lambda n, y: y.flatten(2).transpose(1, 2))
        return "image to tokens", module, module(x)
    name = r.choice(sorted(table))
    made = table[name](r, width) if width > 2 else None
    if made is None:
        return None
    made.eval()
    try:
        y = made(x.clone())
    except (RuntimeError, ValueError, IndexError):  # too small an image, say: another block will fit
        return None
    wide = y.shape[1 if images else 2] <= 64 and y.dim() == x.dim() and y.numel() < 20000 and min(y.shape) > 0
    return (name if images else f"tokens: {name}", made, y) if wide else None


def _entry(r: Random, kind: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    width = r.choice(WIDTHS)
    side = r.choice((5, 6, 8))
    image = torch.randn(2, 3, side, side)
    if kind == "image":
        return nn.Sequential(nn.Conv2d(3, width, 3, 1, 1), nn.BatchNorm2d(width)), (image,)
    if kind == "two images":
        return Net(lambda n, x, y: n.a(x) + n.b(y), a=nn.Conv2d(3, width, 1), b=nn.Conv2d(3, width, 3, 1, 1)), (
            image,
            image + 1,
        )
    if kind == "image and words":
        net = Net(lambda n, x, i: n.a(x) + n.b(i).mean(1)[..., None, None], a=nn.Conv2d(3, width, 1),
                  b=nn.Embedding(11, width))  # fmt: skip
        return net, (image, torch.randint(0, 11, (2, 7)))
    if kind == "signal":
        net = Net(lambda n, x: n.b(n.a(x)).mT, a=nn.Conv1d(3, width, 3, 1, 1), b=nn.BatchNorm1d(width))
        return net, (torch.randn(2, 3, 9),)
    if kind == "volume":
        net = Net(lambda n, x: n.b(n.a(x).relu()).mean(2), a=nn.Conv3d(3, 4, 3, 1, 1), b=nn.Conv3d(4, width, 1))
        return net, (torch.randn(2, 3, 3, 5, 5),)
    if kind == "patches":
        place = nn.Parameter(torch.randn(1, 16, width))
        net = Net(lambda n, x: n.a(x).flatten(2).mT + n.place, a=nn.Conv2d(3, width, 2, 2), place=place)
        return net, (torch.randn(2, 3, 8, 8),)
    if kind == "words":
        return nn.Embedding(11, width), (torch.randint(0, 11, (2, 7)),)
    return nn.Linear(5, width), (torch.randn(2, 7, 5),)


def _head(r: Random, x: Tensor, entry: nn.Module) -> tuple[str, nn.Module]:
    kind = r.choice(HEADS)
    images = x.dim() == 4
    width, total = x.shape[1 if images else 2], x[0].numel()

    def pooled(y: Tensor) -> Tensor:
        return y.mean((2, 3)) if images else y.mean(1)

    if kind == "flattened" and total <= LARGEST:
        return kind, Net(lambda n, y: n.fc(y.flatten(1)), fc=nn.Linear(total, 5))
    if kind == "hard view" and total <= LARGEST:
        return kind, Net(lambda n, y: n.fc(y.reshape(-1, total)), fc=nn.Linear(total, 5))
    if kind == "two":
        places = min(2, x[0].amax(-1).numel())
        return kind, Net(
            lambda n, y: (n.a(pooled(y)), n.b(y.amax(-1).flatten(1)[:, :places])),
            a=nn.Linear(width, 5),
            b=nn.Linear(places, 3),
        )
    if kind == "nested":
        return kind, Net(
            lambda n, y: {"first": [n.a(pooled(y))], "second": (y.square().sum((1, 2)),)}, a=nn.Linear(width, 5)
        )
    if kind == "dataclass":
        return kind, Net(
            lambda n, y: Answers(n.a(z := pooled(y)), (n.b(z).sigmoid(), n.c(z))),
            a=nn.Linear(width, 5), b=nn.Linear(width, 4), c=nn.Linear(width, 1),
        )  # fmt: skip
    if kind == "first token" and not images:
        return kind, Net(lambda n, y: n.fc(n.norm(y)[:, 0]), norm=nn.LayerNorm(width), fc=nn.Linear(width, 5))
    if kind == "tied" and isinstance(entry, nn.Embedding) and width == entry.embedding_dim:
        head = Net(lambda n, y: n.out(y), out=nn.Linear(width, 11, bias=False))
        head.out.weight = entry.weight
        return kind, head
    if kind == "dense":
        return kind, Net(
            lambda n, y: n.two(n.bn(F.relu(n.one(pooled(y))))),
            one=nn.Linear(width, 8),
            bn=nn.BatchNorm1d(8),
            two=nn.Linear(8, 5),
        )
    return "pooled", Net(lambda n, y: n.fc(pooled(y)), fc=nn.Linear(width, 5))
