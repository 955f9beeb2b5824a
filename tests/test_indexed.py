"""Gathering, scattering, unpooling, Fourier transforms and random draws: what they do to channels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core.budgets import Percent
from compress.core.choosing import Scope
from compress.core.clock import Clock
from compress.graph.analyse import analyse
from compress.surgery.network import cut_network
from compress.surgery.planned import Cut, CutOptions
from compress.surgery.silence import double_output


def halved(module: nn.Module, *example: Tensor) -> Cut:
    """Cut every group by half, checked against the masked original."""
    return cut_network(module.eval(), example, CutOptions(budget=Percent(0.5), scope=Scope.LAYER), Clock())


class Between(nn.Module):
    """Something without parameters between two linear layers, of 16 channels."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 3)
        self.middle = [middle]

    def forward(self, x: Tensor) -> Tensor:
        """Run on x (N, tokens, 5)."""
        return self.last(self.middle[0](self.first(x)))


def best_tokens(x: Tensor) -> Tensor:
    """Keep the three tokens of the largest norm."""
    order = x.norm(dim=-1).argsort(1, descending=True)[:, :3]
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))


def summed_by_kind(x: Tensor) -> Tensor:
    """Add up tokens of the same kind."""
    kind = (torch.arange(x.shape[1]) % 3)[None, :, None].expand(x.shape)
    return torch.zeros(x.shape[0], 3, x.shape[2], dtype=x.dtype).scatter_add(1, kind, x)


def put_back(x: Tensor) -> Tensor:
    """Put the tokens in reverse order into a tensor of zeros."""
    places = torch.arange(x.shape[1]).flip(0)[None, :, None].expand(x.shape)
    return torch.zeros_like(x).scatter(1, places, x)


def filtered(x: Tensor) -> Tensor:
    """Mix tokens by their Fourier transform; real and imaginary part are seen apart on the way."""
    found = torch.fft.rfft(x, dim=1, norm="ortho")
    apart = torch.view_as_real(found) * 2.0
    mixed = torch.view_as_complex(apart) + torch.complex(found.imag, found.real)
    return torch.fft.irfft(mixed, n=x.shape[1], dim=1, norm="ortho")


MASK = torch.arange(14).view(2, 7) % 3 == 0


def masked_out(x: Tensor) -> Tensor:
    """Write one number over some tokens."""
    x = x.clone()
    x[MASK] = 0.5
    return x


def moved_tokens(x: Tensor) -> Tensor:
    """Write some tokens over others, and add to others again."""
    x = x.clone()
    x[:, torch.tensor([1, 2])] = x[:, torch.tensor([3, 4])] * 2.0
    return x.index_put((torch.tensor([0, 1]), torch.tensor([2, 3])), x[:, 0] * 3.0, accumulate=True)


def added_by_expert(x: Tensor) -> Tensor:
    """Tokens that an expert took are added where they came from, and one is written over, as mixtures of experts do."""
    flat = x.flatten(0, 1)
    taken = torch.tensor([3, 0, 9])
    out = torch.zeros_like(flat).index_add(0, taken, flat.index_select(0, taken) * 2.0)
    out.index_copy_(0, torch.tensor([1, 5]), flat[:2])
    return out.view_as(x)


def in_place(x: Tensor) -> Tensor:
    """Operators that only exist in place by their tags, or only there by their rules."""
    scores = torch.zeros(x.shape[0], x.shape[1], x.shape[1], dtype=x.dtype)
    scores.baddbmm_(x, x.transpose(1, 2)).tril_().cumsum_(1)
    scores.diagonal(dim1=1, dim2=2).mul_(0.5)
    y = x.clone().abs_().ge_(0.3).add_(x)
    return scores @ y.index_fill(1, torch.tensor([2]), 0.25) + scores.diagonal(dim1=1, dim2=2)[..., None] * x


def strongest(x: Tensor) -> Tensor:
    """Weigh tokens by their largest and smallest channel; where it was is found too, and read by nothing."""
    return x * x.max(dim=-1, keepdim=True)[0].sigmoid() - torch.min(x, 2)[0][..., None] + x.max() * 0.1


def products(x: Tensor) -> Tensor:
    """Multiply matrices by vectors, and vectors by vectors, along the channels."""
    rows = torch.stack([torch.mv(a, b) for a, b in zip(x, x[:, 0], strict=True)])
    return x * rows[..., None] * torch.dot(x[0, 0], x[0, 1])


LEFT_FREE = [
    strongest, products, added_by_expert, in_place, masked_out, moved_tokens, best_tokens, summed_by_kind, put_back,
    filtered,
]  # fmt: skip


@pytest.mark.parametrize("middle", LEFT_FREE)
def test_channels_pass_through(middle: Callable[[Tensor], Tensor]) -> None:
    """Whatever happens along the tokens, the channels stay free, and the cut is exact."""
    torch.manual_seed(0)
    cut = halved(Between(middle), torch.randn(2, 7, 5))
    assert cut.delivered.own
    assert cut.delivered.verdict is not None
    assert cut.delivered.verdict.exact
    assert cut.delivered.module.first.out_features == 8
    assert cut.analysis.unknown == {}


def across_channels(x: Tensor) -> Tensor:
    """Take channels by places that a tensor names."""
    return x.gather(2, torch.tensor([3, 0, 15]).expand(*x.shape[:2], 3)).repeat_interleave(16, 2)[..., :16]


def transformed_channels(x: Tensor) -> Tensor:
    """Transform along the channels."""
    return torch.fft.rfft(x, dim=-1).abs()[..., :1] + x


def numbered(x: Tensor) -> Tensor:
    """Compute with the number of the largest channel."""
    best, where = x.max(dim=-1, keepdim=True)
    return x * best + where * 0.1


def renormed(x: Tensor) -> Tensor:
    """Limit the norm of every token, over all of its channels."""
    return x.renorm(2, 1, 1.0)


def noisy(x: Tensor) -> Tensor:
    """Add random numbers, in evaluation too."""
    return x + torch.randn_like(x)


@pytest.mark.parametrize(
    ("middle", "why"),
    [
        (across_channels, "taken or put by a tensor"),
        (transformed_channels, "Fourier transform along the channels"),
        (noisy, "random numbers are drawn for it"),
        (numbered, "its channels are counted"),
        (renormed, "aten.renorm has no rule"),
    ],
)
def test_channels_stay(middle: Callable[[Tensor], Tensor], why: str) -> None:
    """What runs along the channels pins them, and the group says why."""
    groups = analyse(Between(middle).eval(), (torch.randn(2, 7, 5),)).groups
    (first,) = [g for g in groups if g.name == "first"]
    assert why in " ".join(reason.why for reason in first.pinned)


class Hidden(nn.Module):
    """Hides tokens in training: a parameter, of as many channels, is written over them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.hidden = nn.Linear(5, 16), nn.Linear(16, 3), nn.Parameter(torch.randn(16))

    def forward(self, x: Tensor) -> Tensor:
        """Run on x (2, 7, 5)."""
        x = self.first(x)
        if self.training:
            x = x * torch.bernoulli(torch.full_like(x, 0.9))
            x[MASK] = self.hidden
        return self.last(x)


def test_what_is_written_in_training_leaves_together() -> None:
    """The parameter that only training reads is cut with the channels; random numbers of training pin nothing."""
    torch.manual_seed(0)
    cut = halved(Hidden(), torch.randn(2, 7, 5))
    assert cut.delivered.own
    assert cut.delivered.module.hidden.shape == (8,)
    assert cut.delivered.module.train()(torch.randn(2, 7, 5)).shape == (2, 7, 3)


def test_a_part_that_is_gathered_pins_what_is_cut_short() -> None:
    """An index with fewer channels than its tensor takes the first ones: they cannot leave."""
    net = Between(lambda x: F.pad(x.gather(1, torch.zeros(2, 4, 12, dtype=torch.long)), (0, 4)))
    (first,) = [g for g in analyse(net.eval(), (torch.randn(2, 7, 5),)).groups if g.name == "first"]
    assert "only a part of it is taken or put" in " ".join(reason.why for reason in first.pinned)


class Unpooled(nn.Module):
    """SegNet's pair: what is pooled in the encoder is put back where it was."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x, places = F.max_pool2d(self.down(x), 2, return_indices=True)
        return self.last(F.max_unpool2d(self.up(x), places, 2))


def test_unpooling_keeps_both_sides_in_step() -> None:
    """The encoder's channels leave together with the decoder's, whose places they name."""
    torch.manual_seed(0)
    cut = halved(Unpooled(), torch.randn(2, 3, 8, 8))
    assert cut.delivered.own
    assert cut.delivered.verdict is not None
    assert cut.delivered.verdict.exact
    assert cut.delivered.module.down.out_channels == cut.delivered.module.up.out_channels == 8


def drawn_tokens(x: Tensor) -> Tensor:
    """Keep tokens at random, in evaluation too."""
    return x * (torch.rand(x.shape[0], x.shape[1], 1) > 0.5)


def test_random_numbers_are_the_same_in_both_networks() -> None:
    """A network that draws in evaluation is compared with the same draws."""
    torch.manual_seed(0)
    cut = halved(Between(drawn_tokens), torch.ones(2, 7, 5))
    assert cut.delivered.verdict is not None
    assert cut.delivered.verdict.exact
    assert cut.delivered.module.first.out_features == 8


def test_code_that_narrows_on_the_way_is_compared_in_float64_too() -> None:
    """`x.float()` in a network's code leaves no rounding of float32 in the comparison."""
    torch.manual_seed(0)
    net, x = Between(lambda x: x.float() / 3).eval(), torch.randn(2, 7, 5, dtype=torch.float64)
    (answer,) = double_output(net, (x,))
    net.double()
    torch.testing.assert_close(answer, net.last(net.first(x) / 3), rtol=1e-12, atol=1e-12)


def test_a_comparison_changes_nobody_elses_draws() -> None:
    """What the network draws while it is compared is not taken from the random numbers of the caller."""
    net = Between(drawn_tokens).eval()
    before = torch.random.get_rng_state()
    one, two = (double_output(net, (torch.ones(2, 7, 5),))[0] for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(torch.random.get_rng_state(), before)
