"""What a cut takes is won back from unlabelled inputs, and what cannot be improved is left alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core.types import Plan
from compress.graph.analyse import analyse
from compress.recovery.absorb import Absorbed, absorb
from compress.recovery.closeness import distance
from compress.recovery.consumers import consumers
from compress.recovery.recalibrate import recalibrate
from compress.surgery.cut import dead_labels, dead_of, plan_of
from compress.surgery.module import cut_module
from compress.surgery.program import cut_graph, graph_of
from tests.zoo.harness import Net

Cut = tuple[nn.Module, nn.Module, Absorbed]


def _images(count: int = 64, size: int = 8, channels: int = 3, seed: int = 1) -> Tensor:
    noise = torch.randn(count, channels, size + 2, size + 2, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool2d(noise, 3, 1)  # neighbouring pixels are alike, as in images


def _lively(net: nn.Module, seed: int = 0) -> nn.Module:
    """Random running statistics and scales, so that no norm is the identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if tensor.is_floating_point():
            drawn = torch.randn(tensor.shape, generator=generator)
            positive = name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight"))
            tensor.data = (
                drawn.abs() + 0.5 if positive else drawn * (0.3 if tensor.dim() < 2 else tensor[0].numel() ** -0.5)
            )
    return net.eval()


def _cut(net: nn.Module, keep: dict[str, int], example: Tensor) -> tuple[nn.Module, Any, Any]:
    """Remove the channels that own the last indices of dimension 0 of each parameter named; keep so many."""
    analysis = analyse(net, (example,))
    gone: list[int] = []
    for name, count in keep.items():
        labels = analysis.parameters[name][0]
        assert labels is not None
        gone += analysis.component[labels[count:]].tolist()
    dead = dead_of(analysis, torch.tensor(sorted(set(gone))).numpy())
    return cut_module(net, (example,), analysis, dead).module, analysis, dead


def _absorbed(net: nn.Module, keep: dict[str, int], inputs: list[Tensor]) -> Cut:
    return _absorbed_from(net, keep, inputs, inputs[0][:2])


def _absorbed_from(net: nn.Module, keep: dict[str, int], inputs: list[Tensor], example: Tensor) -> Cut:
    cut, analysis, dead = _cut(net, keep, example)
    raw = copy.deepcopy(cut)
    return raw, cut, absorb(net, cut, analysis, dead, inputs)


def _pooled(net: Net, x: Tensor) -> Tensor:
    return net.fc(x.mean((2, 3)))


def _with_constants(padding: int) -> Net:
    net = Net(
        lambda n, x: n.bn2(n.b(n.bn(n.a(x)).relu())),
        a=nn.Conv2d(3, 8, 3, bias=False), bn=nn.BatchNorm2d(8), b=nn.Conv2d(8, 6, 3, padding=padding, bias=False),
        bn2=nn.BatchNorm2d(6),
    )  # fmt: skip
    _lively(net)
    net.bn.weight.data[4:] = 0
    net.bn.bias.data[4:] = torch.tensor([0.7, 1.3, -0.4, 0.2])
    return net


@pytest.mark.parametrize("padding", [0, 1])
def test_constant_channels_leave_without_a_trace(padding: int) -> None:
    """Channels with gamma 0 emit relu(beta): away from zero padding nothing changes, though the layer has no bias."""
    net, x = _with_constants(padding), _images()
    raw, cut, report = _absorbed(net, {"a.weight": 4}, [x[:32], x[32:]])
    unseen = _images(seed=9)
    border = slice(padding, -padding or None)
    want, have, before = (m(unseen)[..., border, border] for m in (net, cut, raw))
    assert (want - before).abs().max() > 0.1
    assert (want - have).abs().max() < 1e-5 * want.abs().max()
    assert [layer.name for layer in report.layers] == ["b.weight"]


@pytest.mark.parametrize("bias", [False, True])
def test_a_repeated_channel_is_absorbed_exactly(bias: bool) -> None:
    """What is a combination of the rest can leave a layer with or without a place for a constant."""
    net = Net(lambda n, x: n.b(n.a(x)), a=nn.Linear(4, 6), b=nn.Linear(6, 3, bias=bias))
    if not bias:
        net.a.bias = None
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    raw, cut, _ = _absorbed(net, {"a.weight": 4}, [x])
    assert distance(net, raw, [x]) > 0.01
    assert distance(net, cut, [x]) < 1e-6


NETS: dict[str, tuple[Net, dict[str, int], Tensor]] = {
    "residual": (
        Net(
            lambda n, x: _pooled(n, (y := n.bn(n.stem(x)).relu()) + n.b(n.a(y).relu())),
            stem=nn.Conv2d(3, 12, 3, padding=1, bias=False), bn=nn.BatchNorm2d(12),
            a=nn.Conv2d(12, 12, 3, padding=1), b=nn.Conv2d(12, 12, 3, padding=1), fc=nn.Linear(12, 5),
        ),
        {"stem.weight": 8, "a.weight": 8},
        _images(),
    ),
    "grouped": (
        Net(
            lambda n, x: _pooled(n, n.g(n.a(x).relu()).relu()),
            a=nn.Conv2d(3, 16, 3), g=nn.Conv2d(16, 16, 3, padding=1, groups=2), fc=nn.Linear(16, 5),
        ),
        {"a.weight": 14, "g.weight": 14},
        _images(),
    ),
    "whole groups": (
        Net(
            lambda n, x: _pooled(n, n.g(n.a(x).relu()).relu()),
            a=nn.Conv2d(3, 16, 3), g=nn.Conv2d(16, 16, 3, padding=1, groups=8), fc=nn.Linear(16, 5),
        ),
        {"a.weight": 12},
        _images(),
    ),
    "depthwise": (
        Net(
            lambda n, x: _pooled(n, n.p(n.bn(n.d(n.a(x).relu())).relu())),
            a=nn.Conv2d(3, 12, 1), d=nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), bn=nn.BatchNorm2d(12),
            p=nn.Conv2d(12, 8, 1), fc=nn.Linear(8, 5),
        ),
        {"a.weight": 9},
        _images(),
    ),
    "transposed": (
        Net(
            lambda n, x: _pooled(n, n.b(n.t(n.a(x).relu()).relu())),
            a=nn.Conv2d(3, 12, 3), t=nn.ConvTranspose2d(12, 8, 2, stride=2), b=nn.Conv2d(8, 6, 3), fc=nn.Linear(6, 5),
        ),
        {"a.weight": 8},
        _images(),
    ),
    "strided 1-d": (
        Net(
            lambda n, x: n.fc(n.b(n.a(x.flatten(2)).relu()).mean(2)),
            a=nn.Conv1d(3, 12, 5), b=nn.Conv1d(12, 6, 3, stride=2, padding=1, dilation=2), fc=nn.Linear(6, 5),
        ),
        {"a.weight": 8},
        _images(),
    ),
    "tokens": (
        Net(
            lambda n, x: n.fc((y := n.norm(x.flatten(2).mT)) + n.b(F.gelu(n.a(y)))).mean(1),
            norm=nn.LayerNorm(3), a=nn.Linear(3, 16), b=nn.Linear(16, 3), fc=nn.Linear(3, 5),
        ),
        {"a.weight": 9},
        _images(),
    ),
    "flattened": (
        Net(lambda n, x: n.fc(n.a(x).relu().flatten(1)), a=nn.Conv2d(3, 6, 5), fc=nn.Linear(96, 5)),
        {"a.weight": 4},
        _images(400),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_outputs_come_nearer_on_unseen_inputs(name: str) -> None:
    """Whatever reads the lost channels takes up what it can; names, shapes and the original stay as they were."""
    net, keep, x = NETS[name]
    _lively(net)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    raw, cut, report = _absorbed(net, keep, list(x.split(len(x) // 2)))
    unseen = [_images(seed=9)]
    assert distance(net, cut, unseen) < 0.7 * distance(net, raw, unseen)
    assert {k: t.shape for k, t in cut.state_dict().items()} == {k: t.shape for k, t in raw.state_dict().items()}
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    assert all(0 <= layer.after < layer.before for layer in report.layers)
    assert report.inputs == len(x)


@pytest.mark.parametrize("name", ["residual", "grouped", "tokens"])
def test_a_rewritten_graph_is_repaired_alike(name: str) -> None:
    """The graph of the same cut, with the same parameter names, gets the same weights."""
    net, keep, x = NETS[name]
    _lively(net)
    cut, analysis, dead = _cut(net, keep, x[:2])
    plan = plan_of(analysis, torch.unique(torch.from_numpy(analysis.component[dead])).tolist())
    graph, _ = cut_graph(graph_of(net, (x[:2],)), (x[:2],), plan)
    for module in (cut, graph):
        absorb(net, module, analysis, dead, [x])
    want = cut.state_dict()
    assert all(
        torch.allclose(tensor, want[key], atol=1e-4) for key, tensor in graph.state_dict().items() if key in want
    )


def test_a_submodule_is_repaired_inside_its_network() -> None:
    """Where only one part was cut, that part learns from what the whole network gives it."""
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Sequential(nn.Conv2d(6, 12, 3), nn.ReLU(), nn.Conv2d(12, 4, 3)))
    x = _images()
    inner = net[0](x[:2]).detach()
    part, analysis, dead = _cut(net[1], {"0.weight": 7}, inner)
    cut = nn.Sequential(net[0], part)
    before = distance(net, cut, [x])
    absorb(net, cut, analysis, dead, [x], submodule="1")
    assert distance(net, cut, [x]) < 0.7 * before


def test_wide_kernels_mix_channels_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a kernel reads too much for a regression of its own, channels alone are mixed."""
    net, keep, x = NETS["residual"]
    _lively(net)
    monkeypatch.setattr("compress.recovery.refit.FEATURES", 10)
    raw, mixed, _ = _absorbed(net, keep, [x])
    assert distance(net, mixed, [_images(seed=9)]) < 0.7 * distance(net, raw, [_images(seed=9)])


@pytest.mark.parametrize("size", [1, 2])
def test_a_network_of_one_batch_size_is_repaired(size: int) -> None:
    """Batches too small to be split are held out whole; layers are fitted when the data has doubled."""
    net = Net(
        lambda n, x: n.fc(n.a(x.reshape(size, 3, 8, 8)).relu().mean((2, 3))), a=nn.Conv2d(3, 12, 3), fc=nn.Linear(12, 5)
    )
    _lively(net)
    x = list(_images(40 * size).split(size))
    raw, cut, report = _absorbed_from(net, {"a.weight": 8}, x, x[0])
    assert report.inputs == 40 * size
    assert distance(net, cut, x) < 0.7 * distance(net, raw, x)
    assert recalibrate(net, cut, x).norms == 0


def test_what_is_read_otherwise_too_is_left_alone() -> None:
    """A weight that is also an embedding, and one that is computed, are no consumers."""
    net = Net(
        lambda n, x: F.linear(n.w(F.embedding(x, n.e.weight)), n.e.weight),
        e=nn.Embedding(10, 8), w=nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)),
    )  # fmt: skip
    ids = torch.arange(6).reshape(2, 3)
    analysis = analyse(net, (ids,))
    assert consumers(analysis, dead_labels(analysis, Plan({}))) == ()


def test_recalibration_is_kept_where_it_helps() -> None:
    """Wrong running statistics are found again from inputs alone."""
    net, _, x = NETS["residual"]
    _lively(net)
    net.bn.reset_running_stats()
    net.bn.momentum = None  # the mean over all that was seen
    net.train()(x)
    net.eval()
    wrong = copy.deepcopy(net)
    wrong.bn.running_mean += 3
    report = recalibrate(net, wrong, [x])
    assert report.kept
    assert report.after < 0.05 * report.before
    assert report.norms == 1


def test_recalibration_that_does_not_help_is_undone() -> None:
    """A network that computes what the original computes keeps its statistics."""
    net, _, x = NETS["residual"]
    _lively(net)
    same = copy.deepcopy(net)
    report = recalibrate(net, same, [x + 2])
    assert not report.kept
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), same.state_dict().values(), strict=True))


class _Stream(nn.Module):
    """A residual stream with channels that are constant: every scale that feeds them is zero."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.a, self.bn1 = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.b, self.bn2 = nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.out = nn.Conv2d(8, 5, 3, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 5, H, W)."""
        x = self.bn0(self.stem(x)).relu()
        return self.out((x + self.bn2(self.b(self.bn1(self.a(x)).relu()))).relu())


@pytest.mark.parametrize("first", [4, 5])
def test_constants_of_a_residual_stream_leave_exactly(first: int) -> None:
    """In float64 constant channels leave a stream to 1e-10: everywhere if one stays, else away from padded borders."""
    net = _Stream(padding=1)
    _lively(net)
    for norm in (net.bn0, net.bn2):
        norm.weight.data[4:] = 0
        norm.bias.data[4:] = torch.tensor([0.7, 1.3, 0.4, 0.2])
    net, x = net.double(), _images().double()
    raw, cut, _ = _absorbed(net, {"stem.weight": first}, [x[:32], x[32:]])
    unseen = _images(seed=9).double()
    edge = slice(None) if first == 5 else slice(2, -2)  # two padded layers, one after the other
    want, have, before = (m(unseen)[..., edge, edge] for m in (net, cut, raw))
    assert (want - before).abs().max() > 0.05
    assert (want - have).abs().max() < 1e-10


class _Twice(nn.Module):
    """Two branches of linear layers on one stream."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 6)
        self.c, self.d, self.fc = nn.Linear(6, 24), nn.Linear(24, 6), nn.Linear(6, 3)

    def first(self, x: Tensor) -> Tensor:
        """Return the stream after the first branch."""
        return x + self.b(self.a(x).relu())

    def second(self, x: Tensor) -> Tensor:
        """Return the stream after both."""
        x = self.first(x)
        return x + self.d(self.c(x).relu())

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 3)."""
        return self.fc(self.second(x))


def test_a_layer_makes_up_for_what_its_stream_lost() -> None:
    """What one branch can no longer add to the stream, the next one adds, where it reads enough to know it."""
    net = _Twice()
    torch.manual_seed(3)
    for p in net.parameters():
        p.data = torch.randn_like(p) * 0.5
        p.requires_grad_(False)
    x = torch.randn(2000, 6, generator=torch.Generator().manual_seed(1))
    _, cut, report = _absorbed(net, {"a.weight": 3}, [x])
    assert {"b.weight", "d.weight"} <= {layer.name for layer in report.layers}
    unseen = torch.randn(500, 6, generator=torch.Generator().manual_seed(9))
    early = float((cut.first(unseen) - net.first(unseen)).square().sum())
    late = float((cut.second(unseen) - net.second(unseen)).square().sum())
    assert late < 0.9 * early


def test_a_matrix_too_wide_for_a_regression_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left as it was cut, and the report says which one."""
    monkeypatch.setattr("compress.recovery.absorb.WIDE", 3)
    net = Net(lambda n, x: n.b(n.a(x).relu()), a=nn.Linear(4, 6), b=nn.Linear(6, 3))
    raw, cut, report = _absorbed(net, {"a.weight": 4}, [torch.randn(64, 4)])
    assert report.left_out == ("b.weight",)
    assert torch.equal(cut.b.weight, raw.b.weight)
