"""Habits of code in other zoos that a cut has to live with: caches, short paddings, numbers that coincide."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.graph.analyse import analyse
from tests.zoo.harness import Net, cut_both, randomised

IMAGE = (torch.randn(2, 3, 12, 12),)


class Remembers(nn.Module):
    """Adds a bias for every channel that evaluation gathers once and keeps, and that training throws away."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1)
        self.biases = nn.Parameter(torch.randn(6, 5))
        self.head = nn.Conv2d(6, 4, 1)
        self.kept: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> Remembers:
        """Forget when training begins."""
        super().train(mode)
        if mode:
            self.kept = {}
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 4, H, W)."""
        y = self.conv(x)
        if str(y.device) not in self.kept:
            self.kept[str(y.device)] = self.biases[:, [0, 2]].sum(1)
        return self.head(y * self.kept[str(y.device)].reshape(1, -1, 1, 1))


@pytest.mark.parametrize("used", [False, True])
def test_what_evaluation_remembers_is_computed_again(used: bool) -> None:
    """A network that has run before it is cut computes what one computes that has not; its own memory stays."""
    module = randomised(Remembers())
    if used:
        module(*IMAGE)
    outcome = cut_both(module, IMAGE)
    assert outcome.why_not is None
    assert outcome.module_error is not None
    assert outcome.module_error < 1e-12
    assert len(outcome.plan.keep["biases"][0]) < 6
    assert bool(module.kept) is used
    assert all(not m.training for m in module.modules())


def test_one_number_pads_both_sides() -> None:
    """A depthwise convolution with padding "valid" is given one number for height and width."""
    parts = {"a": nn.Conv2d(3, 8, 3), "b": nn.Conv2d(8, 8, 3, padding="valid", groups=8), "c": nn.Conv2d(8, 4, 1)}
    outcome = cut_both(randomised(Net(lambda net, x: net.c(net.b(net.a(x))), **parts)), IMAGE)
    assert outcome.why_not is None
    assert outcome.module_error is not None
    assert outcome.module_error < 1e-12


def test_numbers_that_coincide_are_left_alone() -> None:
    """The size of images and a table stay where the code folds to as many channels, whose number it keeps too."""

    def run(net: Net, x: Tensor) -> Tensor:
        y = net.a(x)
        return net.b(y.reshape(len(y), net.channels, -1).reshape(len(y), net.channels, *y.shape[2:]))

    parts = {"a": nn.Conv2d(3, 12, 3, stride=3), "b": nn.Conv2d(12, 4, 1), "channels": 12, "image_size": (12, 12)}
    net = randomised(Net(run, **parts, table=[12, 1, 2, 3, 4, 5, 6, 7, 8, 9]))
    outcome = cut_both(net, IMAGE)
    assert outcome.why_not is None
    assert outcome.module is not None
    kept = len(outcome.plan.keep["a.weight"][0])
    assert kept < 12
    assert outcome.module.channels == kept
    assert outcome.module.image_size == (12, 12)
    assert outcome.module.table == [12, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_channel_tied_to_the_input_says_where() -> None:
    """Channels added to the image's own stay, and the reason names the operator; those beside them may leave."""

    def run(net: Net, x: Tensor) -> Tensor:
        joined = torch.cat([x, net.a(x)], dim=1)
        return net.head(joined + net.b(x))

    parts = {"a": nn.Conv2d(3, 5, 1), "b": nn.Conv2d(3, 8, 1), "head": nn.Conv2d(8, 4, 1)}
    analysis = analyse(randomised(Net(run, **parts)), IMAGE)
    pinned = {g.name: (g.size, str(g.pinned[0])) for g in analysis.groups if not g.prunable}
    size, why = pinned["b"]
    assert size == 3
    assert why.startswith("meets a channel that is fixed")
    assert "aten.add" in why
    assert [g.size for g in analysis.prunable] == [5]


def test_a_statistic_of_few_wide_groups_leaves_by_groups() -> None:
    """A deviation over each of 3 groups of 8, laid over its group again: whole groups leave, as the statistic asks."""

    def run(net: Net, x: Tensor) -> Tensor:
        y = net.a(x)
        n, c, h, w = y.shape
        rows = y.reshape(n, net.groups, c // net.groups, h, w)
        deviation = rows.var((2, 3, 4), unbiased=False, keepdim=True).add(1e-5).sqrt()
        return net.b(y / deviation.expand(rows.shape).reshape(n, c, h, w))

    net = randomised(Net(run, a=nn.Conv2d(3, 24, 3), b=nn.Conv2d(24, 4, 1), groups=3))
    outcome = cut_both(net, IMAGE, share=0.5)
    assert [g.size for g in outcome.analysis.prunable] == [3]
    assert outcome.why_not is None
    assert outcome.module is not None
    assert outcome.module.groups < 3
    assert outcome.worst < 1e-12


def test_queries_of_the_image_repeated_for_its_windows_leave_by_heads() -> None:
    """One query for all 9 windows of an image: the windows are no copies of the two heads, which may leave."""

    def run(net: Net, x: Tensor) -> Tensor:
        n, heads, width, windows = len(x), net.heads, 4, 9
        y = net.a(x).flatten(2).transpose(1, 2)
        apart = y.reshape(n * windows, 16, -1)
        query = net.q(y[:, :16]).repeat_interleave(windows, dim=0)
        q, k, v = (t.reshape(len(t), 16, heads, width).transpose(1, 2) for t in (query, net.k(apart), net.v(apart)))
        return net.o(((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2))

    layers = {name: nn.Linear(8, 8) for name in "qkvo"}
    outcome = cut_both(randomised(Net(run, a=nn.Conv2d(3, 8, 1), heads=2, **layers)), IMAGE, share=0.5)
    assert [g.size for g in outcome.analysis.prunable if g.name == "q"] == [2]
    assert outcome.worst < 1e-12


def test_padded_values_of_attention_leave_by_heads() -> None:
    """Linear attention normalises by a column of ones beside its values: whole heads leave all the same."""

    def run(net: Net, x: Tensor) -> Tensor:
        q, k, v = net.qkv(x).reshape(len(x), net.heads, 12, -1).chunk(3, dim=2)
        v = nn.functional.pad(v, (0, 0, 0, 1), value=1.0)
        y = (v @ k.relu().transpose(-1, -2)) @ q.relu()
        return net.o((y[:, :, :-1] / (y[:, :, -1:] + 1)).flatten(1, 2).reshape(len(x), -1, *x.shape[2:]))

    net = randomised(Net(run, qkv=nn.Conv2d(3, 48, 1), heads=4, o=nn.Conv2d(16, 4, 1)))
    outcome = cut_both(net, IMAGE, share=0.5)
    assert [(g.name, g.size) for g in outcome.analysis.prunable] == [("qkv", 4)]
    assert outcome.why_not is None
    assert outcome.worst < 1e-12


def test_heads_that_are_turned_in_part_leave_whole() -> None:
    """Rotary embeddings of the first half of every head, laid beside the other half again."""

    def turned(t: Tensor) -> Tensor:
        near, far = t[..., :4], t[..., 4:]
        pairs = near.unflatten(-1, (2, 2))
        swapped = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
        angle = torch.arange(near.shape[2]).float()[:, None] * torch.tensor([1.0, 1.0, 0.1, 0.1])
        return torch.cat([near * angle.cos() + swapped * angle.sin(), far], dim=-1)

    def run(net: Net, x: Tensor) -> Tensor:
        y = net.a(x).flatten(2).transpose(1, 2)
        q, k, v = (layer(y).unflatten(-1, (-1, 8)).transpose(1, 2) for layer in (net.q, net.k, net.v))
        return net.o(((turned(q) @ turned(k).transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2))

    layers = {name: nn.Linear(6 if name != "o" else 24, 24 if name != "o" else 4) for name in "qkvo"}
    outcome = cut_both(randomised(Net(run, a=nn.Conv2d(3, 6, 4, stride=4), **layers)), IMAGE, share=0.5)
    assert [(g.name, g.size) for g in outcome.analysis.prunable] == [("a", 6), ("q", 3)]
    assert outcome.why_not is None
    assert outcome.worst < 1e-12


def test_tokens_that_a_softmax_fixes_are_no_channels_any_more() -> None:
    """Scores of tokens by tokens: what fixes the second fixes the first, and the channels beside them stay free."""

    def run(net: Net, x: Tensor) -> Tensor:
        y = net.mix(net.a(x).flatten(2)).transpose(1, 2)
        scores = (net.q(y) @ net.k(y).transpose(-2, -1)).softmax(-1)
        return net.o((y + scores @ y).flatten(1))

    parts = {"a": nn.Conv2d(3, 5, 4, stride=4), "mix": nn.Linear(9, 7), "q": nn.Linear(5, 4), "k": nn.Linear(5, 4)}
    outcome = cut_both(randomised(Net(run, **parts, o=nn.Linear(35, 3))), IMAGE, share=0.5, graph=True)
    assert [(g.name, g.size) for g in outcome.analysis.prunable] == [("a", 5), ("q", 4)]
    assert outcome.worst < 1e-12


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize(("channels", "runs"), [(11, 3), (7, 3), (10, 3), (13, 4), (9, 2)])
@pytest.mark.parametrize("sized", [False, True])
def test_runs_with_a_shorter_last_one_lose_the_same_positions(
    channels: int, runs: int, share: float, sized: bool
) -> None:
    """A remainder of `chunk` and `split`: a position leaves every run that has it, so that the code still fits."""
    lengths = [len(part) for part in torch.arange(channels).chunk(runs)]

    def run(net: Net, x: Tensor) -> Tensor:
        parts = net.a(x).split(net.width, 1) if sized else net.a(x).chunk(runs, 1)
        return net.z(torch.cat([getattr(net, f"b{i}")(part) for i, part in enumerate(parts)], 1))

    bodies = {f"b{i}": nn.Conv2d(n, n, 3, padding=1, groups=n) for i, n in enumerate(lengths)}
    net = Net(run, a=nn.Conv2d(3, channels, 1), z=nn.Conv2d(channels, 4, 1), width=lengths[0], **bodies)
    outcome = cut_both(randomised(net), IMAGE, share=share)
    assert outcome.why_not is None
    assert outcome.worst < 1e-12
    alone = lengths[-1] == 1  # a single channel meets whole dimensions, and stays
    assert sum(g.size for g in outcome.analysis.prunable) == lengths[0] - alone
    assert len(outcome.plan.keep["a.weight"][0]) < channels
