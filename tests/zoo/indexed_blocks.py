"""Building blocks that take or put elements by index, transform, or add tables that are no parameters."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.blocks import IMAGE_BLOCKS, Block
from tests.zoo.harness import Net
from tests.zoo.token_blocks import TOKEN_BLOCKS

Run = Callable[[Net, Tensor], Tensor]


def tokens(build: Block) -> Block:
    """Enter a block of tokens under its name."""
    TOKEN_BLOCKS[build.__name__] = build
    return build


def image(build: Block) -> Block:
    """Enter a block of images under its name."""
    IMAGE_BLOCKS[build.__name__] = build
    return build


def _places(x: Tensor, count: int) -> Tensor:
    """Numbers of tokens, the last ones first, the same for all channels."""
    return torch.arange(x.shape[1]).flip(0)[:count, None].expand(x.shape[0], -1, x.shape[2])


def _written(n: Net, x: Tensor) -> Tensor:
    y = n.mix(x)
    y[:, :1] = x[:, -1:] * 2.0
    y[:, torch.tensor([0])] = n.token.expand(x.shape[0], 1, -1)
    return y


@tokens
def indexed(r: Random, c: int) -> nn.Module:
    """Tokens taken, put, summed up or written over by index."""
    kinds: list[Run] = [
        lambda n, x: x.gather(1, _places(x, 2)),
        lambda n, x: n.mix(x) + torch.zeros_like(x).scatter(1, _places(x, x.shape[1]), x),
        lambda n, x: torch.zeros_like(x).scatter_add(1, _places(x, x.shape[1]) // 2, n.mix(x)),
        lambda n, x: x.index_put((torch.tensor([0]),), n.mix(x[0])[None], accumulate=True),
        _written,
        lambda n, x: x.index_add(1, torch.tensor([0, 0]), n.mix(x[:, -1:]).expand(-1, 2, -1)),
        lambda n, x: n.mix(x).index_copy(1, torch.tensor([0]), x[:, -1:]),
    ]
    return Net(r.choice(kinds), mix=nn.Linear(c, c), token=nn.Parameter(torch.randn(1, 1, c)))


@tokens
def transformed(r: Random, c: int) -> nn.Module:
    """Fourier transforms along the tokens, or along the channels, beside what they transform."""
    kinds: list[Run] = [
        lambda n, x: x + torch.fft.fft(n.mix(x), dim=1).real,
        lambda n, x: x + torch.fft.irfft(torch.fft.rfft(n.mix(x), dim=1), n=x.shape[1], dim=1),
        lambda n, x: x + n.mix(torch.view_as_real(torch.fft.rfft(x, dim=1, norm="ortho")).mean((1, 3)))[:, None],
        lambda n, x: n.mix(x) + torch.fft.fft2(x).real,
    ]
    return Net(r.choice(kinds), mix=nn.Linear(c, c))


@tokens
def rotated(r: Random, c: int) -> nn.Module:
    """Some channels turned, the others passed on: perhaps there are none."""
    turned = r.choice((c, c // 2))
    return Net(lambda n, x: n.mix(torch.cat([x[..., :turned] * 0.5, x[..., turned:]], -1)), mix=nn.Linear(c, c))


@tokens
def tabled(r: Random, c: int) -> nn.Module:
    """A table of positions that is a plain attribute: added, multiplied, or before a layer."""
    kinds: list[Run] = [
        lambda n, x: x + n.table[: x.shape[1]],
        lambda n, x: x * n.table[None, :1],
        lambda n, x: x + n.mix(n.table[: x.shape[1]]),
        lambda n, x: n.mix(x) + n.table[:1].expand_as(x),
    ]
    return Net(r.choice(kinds), mix=nn.Linear(c, c), table=torch.rand(40, c) + 0.5)


@image
def unpooled(r: Random, c: int) -> nn.Module:
    """What is pooled is put back where it was, perhaps after a convolution; both sides keep their channels in step.

    Upsampled images hold equal neighbours, of which rounding would choose the largest: a slope tells them apart.
    """
    between: Run = r.choice([lambda n, x: x, lambda n, x: n.mix(x), lambda n, x: F.relu(x)])

    def run(n: Net, x: Tensor) -> Tensor:
        slope = 0.013 * torch.arange(x.shape[3]) + 0.029 * torch.arange(x.shape[2])[:, None]
        small, places = F.max_pool2d(x + slope, 2, return_indices=True)
        return x + F.max_unpool2d(between(n, small), places, 2, output_size=x.shape[2:])

    return Net(run, mix=nn.Conv2d(c, c, 1))


@image
def filtered(r: Random, c: int) -> nn.Module:
    """A filter in the plane of frequencies, or a layer over real and imaginary parts side by side."""

    def mixed(n: Net, x: Tensor) -> Tensor:
        found = torch.fft.rfft2(x, norm="ortho")
        one, two = n.both(torch.cat([found.real, found.imag], 1)).chunk(2, 1)
        return x + torch.fft.irfft2(torch.complex(one, two), s=x.shape[2:], norm="ortho")

    def scaled(n: Net, x: Tensor) -> Tensor:
        found = torch.fft.rfft2(x) * torch.view_as_complex(n.gain)
        return torch.fft.irfft2(found, s=x.shape[2:])

    return Net(r.choice([mixed, scaled]), both=nn.Conv2d(2 * c, 2 * c, 1), gain=nn.Parameter(torch.randn(c, 1, 1, 2)))


@image
def meaned(r: Random, c: int) -> nn.Module:
    """A mean that is a plain attribute, taken away in place."""
    inplace = r.random() < 0.5

    def run(n: Net, x: Tensor) -> Tensor:
        x = n.mix(x)
        if inplace:
            x -= n.shift
            return x
        return (x - n.shift) / n.scale

    return Net(run, mix=nn.Conv2d(c, c, 1), shift=torch.randn(1, c, 1, 1), scale=torch.rand(c, 1, 1) + 0.5)
