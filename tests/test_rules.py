"""What operators and users' code do to channels: small networks, each with one trait that real architectures have."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core.budgets import Percent
from compress.core.choosing import Scope
from compress.core.clock import Clock
from compress.core.types import Plan
from compress.graph.analyse import analyse
from compress.graph.instep import in_step
from compress.surgery.cut import dead_labels, plan_of
from compress.surgery.network import cut_network
from compress.surgery.planned import Cut, CutOptions
from compress.surgery.program import cut_graph, graph_of
from compress.surgery.verify import verify
from tests.zoo.harness import Net


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def halved(module: nn.Module, *example: Tensor) -> Cut:
    """Cut every group by half, checked against the masked original."""
    return cut_network(module.eval(), example, CutOptions(budget=Percent(0.5), scope=Scope.LAYER), Clock())


def exact(cut: Cut) -> bool:
    """Whether the check was made and found the cut exact."""
    return cut.delivered.verdict is not None and cut.delivered.verdict.exact


class Computed(nn.Module):
    """Attention whose code computes the head width from the channels that it is given."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(5, dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.head = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.embed(x)
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        return self.head(x + self.out(y))


@pytest.mark.parametrize("heads", [2, 3, 5, 6])
def test_code_that_computes_the_head_width_is_followed(heads: int) -> None:
    """Heads leave together with their run of the channels, so that `channels // heads` stays what it was."""
    net = Computed(8 * heads, heads)
    cut = halved(net, torch.randn(2, 7, 5))
    assert cut.delivered.own
    assert exact(cut)
    assert cut.delivered.module.embed.out_features == 8 * cut.delivered.module.heads < 8 * heads


def test_heads_in_step_leave_with_their_run_of_channels() -> None:
    """In step, a head and the eight channels that feed it are one channel of one group."""
    net = Computed(24, 3).eval()
    free = analyse(net, (torch.randn(2, 7, 5),))
    stepped = in_step(free)
    assert stepped is not None
    assert [g.size for g in free.prunable] == [24, 3]
    assert [g.size for g in stepped.prunable] == [3]


def test_one_head_keeps_the_width_that_its_scale_comes_from() -> None:
    """Where the softmax scale is computed from the width, the width stays and everything else is cut."""
    net = Computed(8, 1)
    cut = halved(net, torch.randn(2, 7, 5))
    assert exact(cut)


class Biased(nn.Module):
    """Attention with a position bias whose shape the module remembers, (tokens, tokens, heads), of equal sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.shape = 4, (4, 4, 4)
        self.embed = nn.Linear(5, 32)
        self.qk = nn.Linear(32, 64)
        self.table = nn.Parameter(torch.randn(16, 4))
        self.register_buffer("index", torch.arange(16))
        self.v = nn.Linear(32, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.embed(x)
        q, k = self.qk(x).reshape(*x.shape[:2], 2, self.heads, 8).permute(2, 0, 3, 1, 4)
        v = self.v(x).reshape(*x.shape[:2], self.heads, 8).transpose(1, 2)
        bias = self.table[self.index].view(self.shape).permute(2, 0, 1)
        y = (q @ k.transpose(-2, -1) + bias).softmax(-1) @ v
        return self.head(y.transpose(1, 2).flatten(2))


def test_an_entry_of_a_remembered_shape_is_repaired() -> None:
    """Of three equal sizes only the one that counts heads may change."""
    cut = halved(Biased(), torch.randn(2, 4, 5))
    assert cut.delivered.own
    assert exact(cut)
    assert (cut.delivered.module.heads, cut.delivered.module.shape) == (2, (4, 4, 2))


class Einsum(nn.Module):
    """Attention by einsum, which runs other operators once a single head is left."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 3
        self.embed = nn.Linear(5, 12)
        self.qkv = nn.Linear(12, 36)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.embed(x)
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, 4).permute(2, 0, 3, 1, 4)
        y = torch.einsum("bhij,bhjd->bhid", torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1), v)
        return self.head(y.permute(0, 2, 1, 3).reshape(*x.shape[:2], -1))


def test_einsum_with_heads_left_out() -> None:
    """Operators may come in another form after the cut; what counts is the result."""
    cut = halved(Einsum(), torch.randn(2, 7, 5))
    assert exact(cut)


class Windowed(nn.Module):
    """Scores of windows, folded into the batch, meet a mask of one matrix a window."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.embed = nn.Linear(5, 16)
        self.qk = nn.Linear(16, 32)
        self.v = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)
        self.register_buffer("mask", torch.randn(3, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.embed(x)
        q, k = self.qk(x).reshape(-1, 6, 2, self.heads, 4).permute(2, 0, 3, 1, 4)
        v = self.v(x).reshape(-1, 6, self.heads, 4).transpose(1, 2)
        scores = (q @ k.transpose(-2, -1)).view(-1, 3, self.heads, 6, 6) + self.mask.unsqueeze(1).unsqueeze(0)
        y = scores.view(-1, self.heads, 6, 6).softmax(-1) @ v
        return self.head(y.transpose(1, 2).reshape(x.shape))


def test_a_mask_over_windows_leaves_the_heads_free() -> None:
    """A mask without a head dimension does not hold the heads."""
    net = Windowed().eval()
    x = torch.randn(6, 6, 5)
    assert 4 in [g.size for g in analyse(net, (x,)).prunable if any(m.parameter == "qk.weight" for m in g.members)]
    assert exact(halved(net, x))


class Spatial(nn.Module):
    """Gates pixels by the mean and the largest value over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = nn.Conv2d(2, 1, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.first(x)
        gate = self.gate(torch.stack([x.mean(1), x.amax(1)], 1)).sigmoid()
        return self.last(x * gate)


def test_mean_and_largest_value_are_taken_over_what_is_kept() -> None:
    """Statistics over the channels do not hold them; the reference takes them over the kept ones too."""
    cut = halved(Spatial(), torch.randn(2, 3, 6, 6))
    assert cut.delivered.own
    assert exact(cut)
    assert cut.delivered.module.first.out_channels == 4


class Aggregate(nn.Module):
    """Mixes two branches by a convolution of width 1 over their channels, as a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 12), nn.Linear(5, 12)
        self.mix = nn.Conv1d(2, 1, 1)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        both = torch.stack([self.one(x), self.two(x)], 1)
        return self.head(self.mix(both).squeeze(1))


def test_a_convolution_of_width_one_passes_its_extent_through() -> None:
    """Nothing slides: channels that lie along the extent may leave."""
    cut = halved(Aggregate(), torch.randn(2, 5))
    assert cut.delivered.own
    assert exact(cut)
    assert cut.delivered.module.one.out_features == 6


class Caching(nn.Module):
    """Remembers a tensor that its first forward makes, as an attribute, in a buffer and in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 4)
        self.register_buffer("made", torch.zeros(1), persistent=False)
        self.kept: dict[str, Tensor] = {}
        self.seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        if self.made.shape[0] != x.shape[1]:
            self.made = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
        if self.seen is None:
            self.seen = self.kept["x"] = self.made * 2
        return self.last(self.first(x + self.made + self.seen).relu())


def test_what_forward_remembers_is_as_it_was() -> None:
    """Neither analysis nor check leaves a tensor of theirs in the user's module."""
    net = Caching().eval()
    x = torch.randn(2, 5)
    cut = halved(net, x)
    assert exact(cut)
    assert net.seen is None
    assert not net.kept
    assert net.made.shape == (1,)
    assert cut.delivered.module(x).dtype == net(x).dtype == torch.float32


class Shared(nn.Module):
    """One convolution used at two places under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.one = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8))
        self.two = nn.Sequential(self.one[0], nn.ReLU())
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        return self.last(self.two(self.one(self.first(x))))


def test_a_shared_parameter_is_cut_under_all_its_names_in_a_graph() -> None:
    """The exported graph keeps both names of one tensor, and both follow the cut."""
    net, x = Shared().eval(), (torch.randn(2, 3, 6, 6),)
    analysis = analyse(net, x)
    plan: Plan = plan_of(analysis, analysis.prunable[0].labels[:4])
    graph, _ = cut_graph(graph_of(net, x), x, plan)
    assert verify(net, graph, x, analysis, dead_labels(analysis, plan)).exact


class Pooled(nn.Module):
    """Heads folded into the batch, their width convolved depthwise by kernels that all heads share."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.embed = nn.Linear(5, 16)
        self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.pool = nn.Conv1d(4, 4, 3, padding=1, groups=4)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.embed(x)
        b, n, _ = x.shape
        q, k, v = (one(x).reshape(b, n, self.heads, 4).transpose(1, 2) for one in (self.q, self.k, self.v))
        k = self.pool(k.reshape(-1, n, 4).transpose(1, 2)).transpose(1, 2).reshape(b, -1, n, 4)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.head(y.transpose(1, 2).flatten(2))


def test_heads_in_the_batch_of_a_depthwise_convolution_may_leave() -> None:
    """The shared kernels stay, whole heads leave."""
    cut = halved(Pooled(), torch.randn(2, 6, 5))
    assert exact(cut)
    assert cut.delivered.module.q.out_features == 8


class Found(nn.Module):
    """Returns the rows that it finds: how many depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        y = self.last(self.first(x).relu())
        return y[(y[:, 0] > 0).nonzero().flatten()]


def test_shapes_that_depend_on_values_are_compared_by_their_values() -> None:
    """The user's own class is delivered although the original finds another number of rows."""
    cut = halved(Found(), torch.randn(64, 5))
    assert cut.delivered.own
    assert exact(cut)
    assert cut.delivered.module.first.out_features == 8


class Scored(nn.Module):
    """Attention of one head whose scores are divided by the root of a width that the views need too."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.width = 1, 16
        self.embed, self.wide, self.last = nn.Linear(5, 24), nn.Linear(24, 64), nn.Linear(16, 3)
        self.q, self.k, self.v = (nn.Linear(64, 16) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.wide(self.embed(x))
        q, k, v = (
            layer(x).view(*x.shape[:2], self.heads, self.width).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        scores = q @ k.transpose(-1, -2) / self.width**0.5
        return self.last((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def test_the_width_that_scores_are_scaled_by_is_found_behind_them() -> None:
    """Scores have no such dimension any more: the width is pinned where they are made, and where else it is used."""
    cut = halved(Scored(), torch.randn(2, 7, 5))
    assert exact(cut)
    assert cut.delivered.own, cut.delivered.why
    net = cut.delivered.module
    assert (net.width, net.q.out_features, net.embed.out_features, net.wide.out_features) == (16, 16, 12, 32)


class PartlyRotated(nn.Module):
    """Turns the first channels of every head and passes the others on: here there are none to pass on."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.first(x).unflatten(-1, (self.heads, 4))
        turned, rest = x[..., :4], x[..., 4:]
        return self.last(torch.cat([turned * 2.0, rest], -1).flatten(-2))


def test_nothing_joined_to_nothing_pins_nothing() -> None:
    """A concatenation of tensors that are all empty (boxes of an image without objects) has no channels."""

    def run(n: Net, x: Tensor) -> Tensor:
        y = n.a(x)
        return n.b(y) + torch.cat([y[:, :0], y[:, 8:]], 1).sum()

    analysis = analyse(Net(run, a=nn.Linear(4, 8), b=nn.Linear(8, 3)).eval(), (torch.randn(2, 4),))
    assert [g.size for g in analysis.prunable] == [8]


def test_an_empty_slice_pins_nothing() -> None:
    """A slice of no channels can be taken and concatenated; the heads stay free."""
    cut = halved(PartlyRotated(), torch.randn(2, 7, 5))
    assert exact(cut)
    assert cut.delivered.module.first.out_features == 8
