"""Layers that networks are built of elsewhere: each between two convolutions, cut by half, in the user's own class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

import compress
from compress.core.budgets import Percent
from compress.core.choosing import Scope
from compress.core.clock import Clock
from compress.core.errors import TraceError, UsageError
from compress.surgery.network import cut_network
from compress.surgery.planned import Cut, CutOptions
from tests.zoo.harness import Net, cut_both, randomised

C = 16


class Between(nn.Module):
    """A convolution of 16 channels, the layer, a convolution of 8 channels, a head."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Conv2d(3, C, 3, padding=1), middle, nn.Conv2d(C, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 4)."""
        out: Tensor = self.head(self.last(self.middle(F.relu(self.first(x)))).mean((2, 3)))
        return out


def halved(middle: nn.Module) -> Cut:
    """Cut every group by half, checked against the masked original; what is initialised with zeros is not zero."""
    net = Between(middle).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return cut_network(net, (torch.randn(2, 3, 12, 12),), CutOptions(budget=Percent(0.5), scope=Scope.LAYER), Clock())


def _pooled(x: Tensor) -> Tensor:
    """Largest and mean channel of every pixel."""
    return torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)


def spatial_attention() -> nn.Module:
    """Pixels weighed by their largest and mean channel, as in CBAM."""
    return Net(lambda n, x: x * n.conv(_pooled(x)).sigmoid(), conv=nn.Conv2d(2, 1, 7, padding=3))


def cell(kind: Callable[[int, int], nn.Module]) -> nn.Module:
    """A recurrent cell over the rows."""

    def run(n: Net, x: Tensor) -> Tensor:
        state: Any = None
        for row in range(3):
            state = n.cell(x[:, :, row].mean(-1), state)
        return x * (state[0] if isinstance(state, tuple) else state)[..., None, None]

    return Net(run, cell=kind(C, C))


def transformer() -> nn.Module:
    """PyTorch's own encoder and decoder, with queries from a table."""

    def run(n: Net, x: Tensor) -> Tensor:
        queries = n.queries.weight[:, None].expand(-1, len(x), -1)
        return x * n.both(x.flatten(2).permute(2, 0, 1), queries).mean(0)[..., None, None]

    return Net(run, both=nn.Transformer(C, 4, 1, 1, 32), queries=nn.Embedding(5, C))


def state_space() -> nn.Module:
    """A selective state of 4 numbers a channel, which the code begins with zeros of a size that it writes out."""

    def run(n: Net, x: Tensor) -> Tensor:
        u = x.flatten(2).transpose(1, 2)[:, :4]
        step = F.softplus(n.step(u))
        decay = torch.exp(-step[..., None] * n.a.exp())
        state, rows = torch.zeros(len(x), x.shape[1], 4).to(x), []
        for t in range(u.shape[1]):
            state = decay[:, t] * state + (step * u)[:, t, :, None] * n.b(u)[:, t, None]
            rows.append((state * n.c(u)[:, t, None]).sum(-1))
        return torch.stack(rows, 2)[..., None]

    parts = {"step": nn.Linear(C, C), "b": nn.Linear(C, 4), "c": nn.Linear(C, 4)}
    return Net(run, a=nn.Parameter(torch.randn(C, 4)), **parts)


def styled() -> nn.Module:
    """Scale and shift from a constant input, whose width the code writes out."""

    def run(n: Net, x: Tensor) -> Tensor:
        scale, shift = n.style(torch.ones(len(x), 3).to(x))[..., None, None].chunk(2, 1)
        return x * (1 + scale) + shift

    return Net(run, style=nn.Linear(3, 2 * C))


def deformable_attention() -> nn.Module:
    """Heads folded into the batch, of maps and of the places where they are sampled, as in Deformable DETR."""

    def run(n: Net, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        maps = n.value(tokens).view(b, h * w, n.heads, -1).permute(0, 2, 3, 1).reshape(b * n.heads, -1, h, w)
        places = n.places(tokens).view(b, h * w, n.heads, 3, 2).tanh().transpose(1, 2).flatten(0, 1)
        share = n.share(tokens).view(b, h * w, n.heads, 3).softmax(-1).transpose(1, 2).reshape(-1, 1, h * w, 3)
        found = (F.grid_sample(maps, places, align_corners=False) * share).sum(-1)
        return n.out(found.view(b, -1, h * w).transpose(1, 2)).transpose(1, 2).view(b, c, h, w)

    layers = {"value": nn.Linear(C, C), "places": nn.Linear(C, 24), "share": nn.Linear(C, 12), "out": nn.Linear(C, C)}
    return Net(run, heads=4, **layers)


def complex_weights() -> nn.Module:
    """A layer in the frequency domain with complex weights, computed in float32 by the user."""

    def run(n: Net, x: Tensor) -> Tensor:
        found = torch.fft.rfft2(x)
        return torch.fft.irfft2(found * n.scale[:, None, None], s=x.shape[2:])

    return Net(run, scale=nn.Parameter(torch.randn(C, dtype=torch.cfloat)))


def own_windows() -> nn.Module:
    """A pooling that gives every channel windows of its own."""
    return nn.FractionalMaxPool2d(2, output_size=5, _random_samples=torch.rand(2, C, 2))


def grown_in_place() -> nn.Module:
    """A dimension is added to what earlier operators have seen without it."""
    return Net(lambda _, x: ((y := x * 1.5).unsqueeze_(-1) * torch.ones(2)).sum(-1) + y.mean(-1))


def turned_in_place() -> nn.Module:
    """Pixels and channels change places in place, and back again."""
    return Net(lambda _, x: (x * 1.5).flatten(2).transpose_(1, 2).mul(2.0).transpose(1, 2).view_as(x))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    **{make.__name__: make for make in (spatial_attention, transformer, state_space, styled, own_windows)},
    **{make.__name__: make for make in (deformable_attention, complex_weights, grown_in_place, turned_in_place)},
    "weight_norm": lambda: weight_norm(nn.Conv2d(C, C, 3, padding=1)),
    "spectral_norm": lambda: spectral_norm(nn.Conv2d(C, C, 3, padding=1)),
    "lstm_cell": lambda: cell(nn.LSTMCell),
    "gru_cell": lambda: cell(nn.GRUCell),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_layers_lose_half_of_their_channels(name: str) -> None:
    """The channels before the layer leave exactly, and the user's own class follows."""
    torch.manual_seed(0)
    cut = halved(LAYERS[name]()).delivered
    assert cut.own, cut.why
    assert cut.verdict is not None
    assert cut.verdict.max_relative_error < 1e-12
    assert cut.module.first.out_channels == C // 2


def low_rank() -> nn.Module:
    """A weight and an update of low rank, merged before they are used."""

    def run(n: Net, x: Tensor) -> Tensor:
        return F.linear(x.permute(0, 2, 3, 1), n.whole.weight + n.up @ n.down, n.whole.bias).permute(0, 3, 1, 2)

    update = {"up": nn.Parameter(torch.randn(C, 4) / 4), "down": nn.Parameter(torch.randn(4, C) / 4)}
    return Net(run, whole=nn.Linear(C, C), **update)


def turned_round() -> nn.Module:
    """One weight for a convolution and, the other way round, for a transposed one."""
    return Net(lambda n, x: F.conv_transpose2d(n.conv(x).relu(), n.conv.weight), conv=nn.Conv2d(C, 24, 1))


def mixed_kernels() -> nn.Module:
    """Kernels mixed for every image, as in CondConv: the mixture is a product that reads no image."""

    def run(n: Net, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        kernels = (n.route(x.mean((2, 3))).sigmoid() @ n.experts.flatten(1)).reshape(b * C, C, 3, 3)
        return F.conv2d(x.reshape(1, b * c, h, w), kernels, padding=1, groups=b).view(b, C, h, w)

    return Net(run, route=nn.Linear(C, 3), experts=nn.Parameter(torch.randn(3, C, C, 3, 3) / 9))


def queried() -> nn.Module:
    """Attention of a table's rows among each other, which no image changes, and then of these to the pixels."""

    def run(n: Net, x: Tensor) -> Tensor:
        table = n.table.weight.expand(len(x), -1, -1)
        queries = n.among(table, table, table)[0]
        tokens = x.flatten(2).transpose(1, 2)
        return x + n.pixels(queries, tokens, tokens)[0].mean(1)[..., None, None]

    among, pixels = (nn.MultiheadAttention(C, 4, batch_first=True) for _ in range(2))
    return Net(run, table=nn.Embedding(5, C), among=among, pixels=pixels)


RECOVERED: dict[str, Callable[[], nn.Module]] = {
    **{make.__name__: make for make in (low_rank, turned_round, mixed_kernels, queried, spatial_attention)},
    "circular": lambda: nn.CircularPad2d(2),
    "weight_norm": LAYERS["weight_norm"],
    "lstm_cell": LAYERS["lstm_cell"],
}


@pytest.mark.parametrize("name", RECOVERED)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_accuracy_is_won_back_around_layers(name: str) -> None:
    """Channels are valued by what reads them, and what stays makes up for what left."""
    torch.manual_seed(0)
    net, images = Between(RECOVERED[name]()).eval(), torch.randn(64, 3, 12, 12)
    errors = []
    with torch.no_grad():
        want = net(images)
        for recover in (True, False):
            cut = compress.slim(
                net, images[:2], percent=0.4, round_to=1, scope="layer", calibration=images, recover=recover
            )
            got = torch.cat([cut.model(two) for two in images.split(2)])
            errors.append(float((got - want).norm() / (want - want.mean(0)).norm()))
    assert errors[0] < 1.0
    assert errors[0] < 0.5 * errors[1]


def test_a_graph_of_one_batch_size_is_told_and_judged_by_it() -> None:
    """`len(x)` is a number in an exported graph: where a graph is delivered, it takes the example's batch only."""

    def run(n: Net, x: Tensor) -> Tensor:
        if x.shape[1] != C:
            raise ValueError("the code takes no other width")
        return x + n.table.weight.expand(len(x), -1, -1).mean(1)[..., None, None]

    torch.manual_seed(0)
    net, images = Between(Net(run, table=nn.Embedding(5, C))).eval(), torch.randn(16, 3, 12, 12)
    labels = torch.randint(4, (16,))
    done = compress.slim(
        net, images[:2], percent=0.4, round_to=1, scope="layer", importance="l2",
        calibration=images, data=(images, labels),
    )  # fmt: skip
    assert not isinstance(done.model, Between)
    assert "takes batches of 2 only" in done.report.delivered_why
    assert done.report.accuracy_pruned is not None
    assert done.report.accuracy_pruned.images == 16


def test_gradients_that_do_not_come_back_are_told() -> None:
    """A criterion by gradients on code that recomputes without them is refused in one sentence."""
    layer = Net(lambda n, x: checkpoint(n.conv, x, use_reentrant=True), conv=nn.Conv2d(C, C, 1))
    with pytest.raises(UsageError, match="no gradient comes back through the network"):
        compress.slim(
            Between(layer).eval(), torch.randn(2, 3, 12, 12), percent=0.4, importance="hessian",
            calibration=torch.randn(8, 3, 12, 12),
        )  # fmt: skip


def test_groups_that_the_graph_computes_are_left_to_it() -> None:
    """Kernels mixed for every image, applied with as many groups as there are images: the exported graph is cut."""

    def run(n: Net, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        kernels = (n.route(x.mean((2, 3))).sigmoid() @ n.experts.view(3, -1)).view(b * n.out, c, 3, 3)
        return F.conv2d(x.reshape(1, b * c, h, w), kernels, padding=1, groups=b).view(b, n.out, h, w)

    torch.manual_seed(0)
    middle = Net(run, route=nn.Linear(C, 3), experts=nn.Parameter(torch.randn(3, C, C, 3, 3)), out=C)
    cut = halved(middle).delivered
    assert cut.verdict is not None
    assert cut.verdict.exact


def test_the_size_of_a_sampling_grid_is_no_shape_of_its_result() -> None:
    """A spatial transformer as a graph: (N, C, H, W) asks for a grid of (N, H, W, 2), and stays as it is."""

    def run(n: Net, x: Tensor) -> Tensor:
        grid = F.affine_grid(n.where(x.mean((2, 3))).view(-1, 2, 3), x.shape, align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)

    torch.manual_seed(0)
    outcome = cut_both(randomised(Between(Net(run, where=nn.Linear(C, 6)))), (torch.randn(2, 3, 12, 12),), graph=True)
    assert outcome.why_not is None
    assert len(outcome.plan.keep["first.weight"][0]) < C
    assert outcome.worst < 1e-12


def test_a_network_that_neither_follows_nor_exports_says_both() -> None:
    """Rounding to steps that are told in float32 only: neither way is open, and the error tells of each."""
    layer = Net(lambda n, x: torch.fake_quantize_per_channel_affine(n.conv(x), n.steps, n.zeros, 1, -128, 127))
    layer.conv, zeros = nn.Conv2d(C, C, 1), torch.zeros(C, dtype=torch.int32)
    for name, tensor in (("steps", torch.rand(C) / 9 + 0.1), ("zeros", zeros)):
        layer.register_buffer(name, tensor)
    with pytest.raises(TraceError, match=r"torch\.export cannot trace .*; and the own class cannot be delivered: "):
        halved(layer)


def test_what_is_resized_for_its_own_ends_pins_and_nothing_breaks() -> None:
    """A layer of old that resizes its buffers in place: what it touches stays, the rest is cut."""
    torch.manual_seed(0)
    cut = halved(nn.CrossMapLRN2d(3))
    assert cut.delivered.own
    assert cut.delivered.module.last.out_channels == 4
    assert "aten.resize_as_" in cut.analysis.unknown
