"""Sizes that a user's module remembers, wherever they are kept, follow the cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core.budgets import Percent
from compress.core.choosing import Scope
from compress.core.clock import Clock
from compress.surgery.attributes import certain, options, own_attributes
from compress.surgery.network import cut_network
from compress.surgery.planned import Cut, CutOptions
from tests.zoo.harness import Net


def halved(module: nn.Module, *example: Tensor) -> Cut:
    """Cut every group by half, checked against the masked original."""
    return cut_network(module.eval(), example, CutOptions(budget=Percent(0.5), scope=Scope.LAYER), Clock())


class Rearranged(nn.Module):
    """A reshape as a layer that keeps its lengths as einops does: in a private tuple, and in a dictionary."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.lengths = {"h": heads}
        self._pairs = (("h", heads),)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n, h d) -> (N, h, n, d)."""
        n, length, _ = x.shape
        assert dict(self._pairs) == self.lengths
        return x.view(n, length, self._pairs[0][1], -1).transpose(1, 2)


class Attends(nn.Module):
    """Attention whose heads are apart in such a layer, with a norm over the width of a head."""

    def __init__(self, heads: int = 4, width: int = 8) -> None:
        super().__init__()
        self.embed, self.q, self.k, self.v = (nn.Linear(n, heads * width) for n in (5, *3 * [heads * width]))
        self.apart, self.norm = Rearranged(heads), nn.LayerNorm(width)
        self.out = nn.Linear(heads * width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.embed(x)
        q, k, v = (self.norm(self.apart(layer(x))) for layer in (self.q, self.k, self.v))
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


def test_lengths_in_private_and_nested_collections_follow() -> None:
    """Both collections have the new number of heads; the original keeps its own."""
    torch.manual_seed(0)
    net = Attends()
    cut = halved(net, torch.randn(2, 7, 5))
    assert cut.delivered.own, cut.delivered.why
    assert cut.delivered.verdict is not None
    assert cut.delivered.verdict.exact
    assert cut.delivered.module.apart._pairs == (("h", 2),)
    assert cut.delivered.module.apart.lengths == {"h": 2}
    assert net.apart._pairs == (("h", 4),)


def test_collections_are_repaired_entry_by_entry() -> None:
    """Names, numbers that stay and flags are left alone; two choices for one number are no certainty."""
    table = {8: {4}, 3: {3}, 6: {2, 3}}
    assert certain("a", (("h", 8), True, [3]), table) == (("h", 4), True, [3])
    assert certain("a", {"a": 6}, table) is None
    assert options({"a": 6, "b": "x"}, table) == [{"a": 3, "b": "x"}, {"a": 2, "b": "x"}]
    assert options(("h", 1), table) == []


def test_what_a_module_keeps_for_itself_is_no_size() -> None:
    """PyTorch's own tables, tensors and objects among other values are passed over."""
    net = Rearranged(4)
    net.table = [4, torch.ones(2)]
    net.mode = "h"
    assert [key for _, _, key, _ in own_attributes(net)] == ["lengths", "_pairs"]


class Picky(nn.Module):
    """Runs on shapes alone, and refuses real tensors that are narrower than it was made for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.first(x)
        if not x.is_meta and x.shape[-1] != 16:
            raise ValueError("wants 16 channels")
        return self.last(x)


def test_code_that_refuses_real_tensors_is_no_error() -> None:
    """The graph is delivered instead, and its reason is what the code said."""
    torch.manual_seed(0)
    cut = halved(Picky(), torch.randn(2, 5))
    assert not cut.delivered.own
    assert "wants 16 channels" in cut.delivered.why
    assert cut.delivered.verdict is not None
    assert cut.delivered.verdict.exact


class Remembering(nn.Module):
    """Keeps sizes that nothing reads when it runs: some are its channels, some only look like them."""

    def __init__(self, channels: int = 8, kernel: int = 8, heads: int = 4) -> None:
        super().__init__()
        self.channels, self.kernel_size, self.heads = channels, kernel, heads
        self.first = nn.Conv2d(3, channels, kernel)
        self.last = nn.Linear(channels * 4, 5)
        self.width = channels * 4

    def forward(self, x: Tensor) -> Tensor:
        """Run: the view needs the width."""
        return self.last(F.adaptive_avg_pool2d(self.first(x), 2).view(-1, self.width))


def test_a_number_that_may_be_something_else_is_left_where_nothing_needs_it() -> None:
    """The kernel stays 8 x 8 while the channels become 4, so neither 8 is touched; the width is needed."""
    torch.manual_seed(0)
    cut = halved(Remembering(), torch.randn(2, 3, 12, 12))
    assert cut.delivered.own
    net = cut.delivered.module
    assert (net.first.out_channels, net.width) == (4, 16)
    assert (net.kernel_size, net.channels) == (8, 8)


def test_a_number_that_can_only_be_the_channels_follows_unread() -> None:
    """With another kernel there is no doubt."""
    torch.manual_seed(0)
    cut = halved(Remembering(kernel=3), torch.randn(2, 3, 12, 12))
    assert cut.delivered.own
    assert (cut.delivered.module.kernel_size, cut.delivered.module.channels) == (3, 4)


def test_what_a_name_calls_something_else_is_left_unless_the_code_needs_it() -> None:
    """A stride of 8 and 8 layers are no channels, in a dictionary neither; a `stride` that the view needs follows."""
    torch.manual_seed(0)
    net = Remembering(kernel=3)
    net.max_stride, net.embed_dim, net.config = 8, 8, {"num_layers": 8, "width": 8}
    cut = halved(net, torch.randn(2, 3, 12, 12)).delivered
    assert cut.own
    assert (cut.module.max_stride, cut.module.embed_dim, cut.module.config) == (8, 4, {"num_layers": 8, "width": 4})

    def run(net: Net, x: Tensor) -> Tensor:
        y = net.first(x)
        return net.last(y.view(len(y), net.stride, -1).mean(-1))

    named = Net(run, first=nn.Conv2d(3, 8, 3), last=nn.Linear(8, 5), stride=8)
    cut = halved(named, torch.randn(2, 3, 12, 12)).delivered
    assert cut.own, cut.why
    assert cut.module.stride == 4


class Table(nn.Module):
    """Biases of pairs of places, made by a small network and given out by a method, as its owner never calls it."""

    def __init__(self, places: int, heads: int) -> None:
        super().__init__()
        self.shape = (places, places, heads)
        self.make = nn.Sequential(nn.Linear(2, places), nn.ReLU(), nn.Linear(places, heads))
        self.register_buffer("apart", torch.randn(2 * places - 1, 2))
        self.register_buffer("index", torch.arange(places * places) % (2 * places - 1))

    def biases(self) -> Tensor:
        """(heads, places, places)."""
        return self.make(self.apart)[self.index].view(self.shape).permute(2, 0, 1)


class Biased(nn.Module):
    """Attention over as many places as it has channels, with a table of biases."""

    def __init__(self, heads: int = 4, width: int = 16) -> None:
        super().__init__()
        self.heads = heads
        self.embed, self.q, self.k, self.v = (nn.Linear(n, width) for n in (5, *3 * [width]))
        self.table, self.out = Table(width, heads), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.embed(x)
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = ((q @ k.transpose(-2, -1) + self.table.biases()).softmax(-1) @ v).transpose(1, 2)
        return self.out(y.flatten(2))


def test_a_module_whose_methods_another_calls_is_repaired() -> None:
    """16 is the number of places, which stays, and of channels, which become 8: only the heads of the shape follow."""
    torch.manual_seed(0)
    cut = halved(Biased(), torch.randn(2, 16, 5))
    assert cut.delivered.own, cut.delivered.why
    assert cut.delivered.verdict is not None
    assert cut.delivered.verdict.exact
    assert cut.delivered.module.table.shape == (16, 16, 2)


class Shortcut(nn.Module):
    """Keeps the norm's input as its shortcut where it makes as many channels as it reads, else the norm's output."""

    def __init__(self, channels: int, made: int) -> None:
        super().__init__()
        self.made, self.channels, self.width = made, channels, made
        self.norm, self.make = nn.LayerNorm(channels), nn.Linear(channels, made)
        self.short = nn.Identity() if made == channels else nn.Linear(channels, made)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 8, channels) -> (N, 8, made)."""
        y = self.norm(x.view(-1, 8, self.channels))
        short = x if self.made == self.channels else self.short(y)
        return short + self.make(y).view(-1, 8, self.width)


class Shortcuts(nn.Module):
    """As many places as channels, so that 8 is either."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.blocks = nn.Linear(5, 8), nn.Sequential(Shortcut(8, 8), Shortcut(8, 16))
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        return self.out(self.blocks(self.embed(x)))


def test_two_numbers_that_the_code_compares_stay_in_step() -> None:
    """One of them set back alone would take another shortcut, in which all shapes are the same."""
    torch.manual_seed(0)
    cut = halved(Shortcuts(), torch.randn(3, 8, 5))
    assert cut.delivered.own, cut.delivered.why
    block = cut.delivered.module.blocks[0]
    assert block.made == block.channels
    assert cut.delivered.verdict is not None
    assert cut.delivered.verdict.exact


class Peaked(nn.Module):
    """Attention of one head, whose scale comes from its width, with scores so far apart that one place has it all."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed, self.q, self.k, self.v = (nn.Linear(n, width) for n in (5, *3 * [width]))
        self.out = nn.Linear(width, 3)
        self.q.weight.data.mul_(1e5)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.embed(x)
        q, k, v = (layer(x)[:, None] for layer in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v)[:, 0])


def test_another_scale_is_seen_where_the_result_does_not_show_it() -> None:
    """The width of queries and keys stays, though without half of it the results would be the same to 12 digits."""
    torch.manual_seed(0)
    cut = halved(Peaked(), torch.randn(2, 7, 5))
    assert cut.delivered.own, cut.delivered.why
    assert "computes with" in cut.delivered.why
    assert (cut.delivered.module.q.out_features, cut.delivered.module.v.out_features) == (16, 8)


class Idle(nn.Module):
    """Does nothing in evaluation, and has a number of its own."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """In training, silence a block."""
        return F.dropout2d(x, self.block / 100) if self.training else x


class Folding(nn.Module):
    """Folds images and unfolds them by the number of channels, within a module that has an idle one too."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.idle = channels, Idle(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        return self.idle(x.reshape(len(x), self.channels, -1) * 2).reshape(len(x), self.channels, *x.shape[2:])


def test_a_module_that_did_nothing_keeps_its_numbers() -> None:
    """8 channels become 4 around it; the 8 of its block is no size of theirs."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), Idle(8), Folding(8), nn.Conv2d(8, 2, 1))
    cut = halved(net, torch.randn(2, 3, 9, 9))
    assert cut.delivered.own, cut.delivered.why
    assert (cut.delivered.module[1].block, cut.delivered.module[2].channels) == (8, 4)
    assert cut.delivered.module[2].idle.block == 8


class Looks(nn.Module):
    """Gives its answers at the place where they are largest."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.heat = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(1, 3, H, W) -> (1, 4)."""
        found = self.heat(self.first(x).relu()).flatten(2)
        return found[:, :, int(found.sum((0, 1)).argmax())]


def test_numbers_that_come_from_values_may_be_others() -> None:
    """The place where the cut network's answers are largest is another one than the original's, and is right."""
    torch.manual_seed(0)
    cut = halved(Looks(), torch.randn(1, 3, 16, 16))
    assert cut.delivered.own, cut.delivered.why
    assert cut.delivered.module.first.out_channels == 16
    assert cut.delivered.verdict is not None
    assert cut.delivered.verdict.exact


def by_thirds(x: Tensor) -> Tensor:
    """Two pieces of a third each, and what is left."""
    third = x.shape[1] // 3
    return torch.cat([x[:, third : 2 * third], x[:, :third], x[:, 2 * third :]], 1)


class NonLocal(nn.Module):
    """A non-local block: one number of channels for what it compares and what it gathers, and a scale by it."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.inner = inner
        self.q, self.k, self.v = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.out = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        v = self.v(x).view(len(x), self.inner, -1)
        q = self.q(x).view(len(x), self.inner, -1).permute(0, 2, 1)
        scores = q @ self.k(x).view(len(x), self.inner, -1)
        scores /= q.shape[-1] ** 0.5
        return x + self.out((v @ scores.softmax(-1).mT).reshape(len(x), -1, *x.shape[2:]))


def test_one_number_of_several_layers_stays_where_one_of_them_must() -> None:
    """The width that the scale is computed from is also that of what is gathered: all of it stays."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), NonLocal(16, 8), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 2, 1))
    cut = halved(net, torch.randn(2, 3, 9, 9))
    assert cut.delivered.own, cut.delivered.why
    assert [cut.delivered.module[1].v.weight.shape[d] for d in (0, 1)] == [8, 8]
    assert cut.delivered.module[3].in_channels == 8


class TensorScale(nn.Module):
    """Attention of one head whose scale is the root of a tensor that holds its width."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.q, self.k, self.v = (nn.Linear(n, 16) for n in (5, 16, 16, 16))
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n, 5) -> (N, n, 3)."""
        x = self.embed(x)
        scores = self.q(x) @ self.k(x).mT / torch.sqrt(torch.tensor(self.q.out_features, dtype=torch.float32))
        return self.out(scores.softmax(-1) @ self.v(x))


def test_a_number_held_by_a_tensor_is_compared() -> None:
    """Half of the width would give another scale, which only the tensor's content tells: queries and keys stay."""
    torch.manual_seed(0)
    cut = halved(TensorScale(), torch.randn(2, 7, 5))
    assert cut.delivered.own, cut.delivered.why
    assert (cut.delivered.module.q.out_features, cut.delivered.module.v.out_features) == (16, 8)


class Stages(nn.Module):
    """Tokens through PyTorch's attention of one head, then of five; queries, keys and values are given apart."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.more, self.out = nn.Linear(5, 16), nn.Linear(16, 40), nn.Linear(40, 3)
        self.norms = nn.ModuleList([nn.LayerNorm(16), nn.LayerNorm(40)])
        self.one, self.five = nn.MultiheadAttention(16, 1), nn.MultiheadAttention(40, 5)
        self.wide, self.narrow = nn.Linear(40, 160), nn.Linear(160, 40)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n, 5) -> (N, n, 3)."""
        x = self.embed(x)
        for norm, attention, after in zip(self.norms, (self.one, self.five), (self.more, nn.Identity()), strict=True):
            y = norm(x)
            x = after(x + attention(*(y.transpose(0, 1) for _ in range(3)))[0].transpose(0, 1))
        return self.out(x + self.narrow(self.wide(x).relu()))


def test_attention_that_compares_its_width_with_a_number_follows() -> None:
    """One head stays with the stream it reads; of five, whole heads leave with their run of it."""
    torch.manual_seed(0)
    cut = halved(Stages(), torch.randn(2, 7, 5))
    assert cut.delivered.own, cut.delivered.why
    one, five = cut.delivered.module.one, cut.delivered.module.five
    assert (one.embed_dim, one.num_heads) == (16, 1)
    assert (five.embed_dim, five.num_heads) == (24, 3)


def by_halves(x: Tensor) -> Tensor:
    """One half as it is beside the other, as ShuffleNet's blocks have it."""
    half = x.shape[1] // 2
    return torch.cat([x[:, :half], x[:, half:] * 2], 1)


@pytest.mark.parametrize("parted", [by_halves, by_thirds])
def test_pieces_by_the_number_of_channels_stay_even(parted: Callable[[Tensor], Tensor]) -> None:
    """Code that takes a tensor apart by its size follows, as its pieces lose the same channels."""
    torch.manual_seed(0)
    net = Net(lambda n, x: n.out(parted(n.first(x))), first=nn.Conv2d(3, 24, 3))
    net.out = nn.Conv2d(parted(net.first(torch.randn(1, 3, 9, 9))).shape[1], 2, 1)
    cut = halved(net, torch.randn(2, 3, 9, 9))
    assert cut.delivered.own, cut.delivered.why
    assert cut.delivered.module.first.out_channels == 12


class TokensFirst(nn.Module):
    """A class token, and attention whose queries, keys and values are transposed apart: its layers are products."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.out = nn.Linear(5, 32), nn.LayerNorm(32), nn.Linear(32, 3)
        self.attention, self.token = nn.MultiheadAttention(32, 4), nn.Parameter(torch.randn(1, 1, 32))

    def forward(self, x: Tensor) -> Tensor:
        """(N, n, 5) -> (N, n + 1, 3)."""
        y = self.norm(torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1))
        return self.out(self.attention(*(y.transpose(0, 1) for _ in range(3)))[0].transpose(0, 1))


def test_heads_leave_whole_where_layers_are_products() -> None:
    """A product with a weight is a layer, not attention: its outputs are not taken for heads and their widths."""
    torch.manual_seed(0)
    cut = halved(TokensFirst(), torch.randn(2, 7, 5))
    assert cut.delivered.own, cut.delivered.why
    assert (cut.delivered.module.attention.num_heads, cut.delivered.module.attention.head_dim) == (2, 8)
