"""Every criterion scores what its formula says, and says so where it lacks inputs or labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compress
from compress.core.errors import PlanError, UsageError
from compress.core.types import Group
from compress.graph.analyse import analyse
from compress.graph.costs import norm_scales
from compress.importance import CRITERIA, Evidence, Weights, default_criterion, score
from compress.importance.reconstruction import Wide, eliminate
from compress.report.inspection import inspection
from compress.report.inspectjson import inspection_json
from tests.zoo.harness import Net


def _chain(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net(
        lambda n, x: n.fc(n.b(n.a(x).relu()).relu().mean((2, 3))),
        a=nn.Conv2d(3, 6, 3), b=nn.Conv2d(6, 4, 3), fc=nn.Linear(4, 5),
    ).eval()  # fmt: skip


def _inputs(count: int = 64) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def _weights(net: nn.Module, x: Tensor, *, labels: bool = True) -> tuple[tuple[Group, ...], Weights]:
    analysis = analyse(net, (x[:2],))
    y = net(x).detach().argmax(1)
    evidence = Evidence(net, tuple(x.split(32)), tuple(y.split(32)) if labels else None)
    return analysis.prunable, Weights(analysis.tensors, norm_scales(analysis.traces), evidence)


def _scores(net: nn.Module, name: str, x: Tensor) -> dict[str, np.ndarray]:
    groups, weights = _weights(net, x)
    return dict(score(groups, weights, name)[0])


@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "bn"])
def test_every_criterion_scores_every_channel(name: str) -> None:
    """Scores are finite, one a channel, larger for what matters more, and the network is left as it was."""
    net, x = _chain(), _inputs()
    for part in (net.a, net.b):
        part.weight.data[1] *= 1e-3  # a filter that does next to nothing
        part.bias.data[1] = 0
    net.b.weight.data[:, 1] *= 1e-3
    net.fc.weight.data[:, 1] *= 1e-3
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    flags = [p.requires_grad for p in net.parameters()]
    got = _scores(net, name, x)
    assert {key: s.shape for key, s in got.items()} == {"a": (6,), "b": (4,)}
    assert all(np.isfinite(s).all() and (s >= 0).all() for s in got.values())
    if name not in ("random", "fpgm", "apoz"):  # these do not look at size
        assert all(int(s.argmin()) == 1 for s in got.values())
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    assert [p.requires_grad for p in net.parameters()] == flags
    assert all(p.grad is None for p in net.parameters())


def test_geometric_median_drops_the_middle() -> None:
    """Of filters on a line, the middle one is nearest to all others."""
    net = Net(lambda n, x: n.b(n.a(x)), a=nn.Linear(2, 5), b=nn.Linear(5, 3))
    net.a.weight.data = torch.tensor([[-4.0, 0], [-2, 0], [0, 0], [1, 0], [5, 0]])
    net.b.weight.data.fill_(1.0)
    assert int(_scores(net, "fpgm", torch.randn(8, 2))["a"].argmin()) == 2


def test_activity_is_that_of_the_reader() -> None:
    """mean |x|, the fraction that is not zero and |w| rms(x) are those of what the next layer reads."""
    net, x = _chain(), _inputs()
    seen = net.a(x).relu().detach().transpose(0, 1).flatten(1).double()
    size = seen.abs().mean(1).numpy()
    alive = (seen != 0).double().mean(1).numpy()
    wanda = (net.b.weight.detach().abs().sum((0, 2, 3)) * seen.square().mean(1).sqrt()).numpy()
    for name, want in (("activation", size), ("apoz", alive), ("wanda", wanda)):
        assert np.allclose(_scores(net, name, x)["a"], want / want.mean(), rtol=1e-4)


def test_taylor_is_the_change_of_the_loss() -> None:
    """Scaling a channel's slices by 1 + t changes the loss by t times the score, to first order."""
    net, x = _chain().double(), _inputs().double()
    y = net(x).argmax(1)
    got = _scores(net, "taylor", x)["b"]
    step = 1e-6
    for channel in range(4):
        with torch.no_grad():
            losses = []
            for factor in (1 + step, 1 - step):
                twin = _chain().double()
                twin.b.weight[channel] *= factor
                twin.b.bias[channel] *= factor
                twin.fc.weight[:, channel] *= factor
                losses.append(float(nn.functional.cross_entropy(twin(x), y)))
        assert abs(losses[0] - losses[1]) / (2 * step) == pytest.approx(got[channel], rel=1e-4)


def test_reconstruction_is_what_regression_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without slopes, the first channel costs what least squares from the others cannot explain, over the variance."""
    monkeypatch.setattr("compress.importance.evidence.slopes", lambda *_, **__: {})
    torch.manual_seed(3)
    net = Net(lambda n, x: n.b(n.a(x).relu()), a=nn.Linear(4, 6), b=nn.Linear(6, 3))
    x = torch.randn(4000, 4, generator=torch.Generator().manual_seed(2))
    z = net.a(x).relu().detach().double().numpy()
    z = z - z.mean(0)
    w = net.b.weight.detach().double().numpy()
    lost = []
    for c in range(6):
        others = np.delete(z, c, axis=1)
        rest = z[:, c] - others @ np.linalg.lstsq(others, z[:, c], rcond=None)[0]
        lost.append((rest**2).mean() * (w[:, c] ** 2).sum())
    want = min(lost) / ((z @ w.T) ** 2).mean(0).sum()
    got = _scores(net, "reconstruction", x)["a"]
    assert int(got.argmin()) == int(np.argmin(lost))
    assert got.min() == pytest.approx(want, rel=2e-3)


def test_slopes_weigh_what_regression_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """With slopes F the cost is tr(F d d^T) / 2, d what is left of the result's error, summed over the places."""
    monkeypatch.setattr("compress.importance.reconstruction.EVEN", 0.0)
    torch.manual_seed(3)
    net = Net(lambda n, x: n.fc(n.b(n.a(x).relu()).relu()), a=nn.Linear(4, 5), b=nn.Linear(5, 3), fc=nn.Linear(3, 4))
    x = torch.randn(3000, 4, generator=torch.Generator().manual_seed(2))
    groups, weights = _weights(net, x)
    assert weights.evidence is not None
    slopes = weights.evidence.slopes["b.weight"].numpy()
    z = net.a(x).relu().detach().double().numpy()
    z, w, lost = z - z.mean(0), net.b.weight.detach().double().numpy(), []
    for c in range(5):
        others = np.delete(z, c, axis=1)
        rest = z[:, c] - others @ np.linalg.lstsq(others, z[:, c], rcond=None)[0]
        lost.append(0.5 * (rest**2).mean() * w[:, c] @ slopes @ w[:, c])
    got = score(groups, weights, "reconstruction")[0]["a"]
    assert int(got.argmin()) == int(np.argmin(lost))
    assert got.min() == pytest.approx(min(lost), rel=2e-3)


def test_slopes_are_those_of_the_answers_divergence() -> None:
    """At the last layer F is the mean of diag(p) - p p^T, the curvature of the divergence there; nothing is changed."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4, 4)).eval()
    x = torch.randn(4000, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    net[0].weight.requires_grad_(False)
    got = Evidence(net, tuple(x.split(500))).slopes
    p = net(x).detach().double().softmax(1)
    want = torch.diag(p.mean(0)) - p.mT @ p / len(p)
    assert set(got) == {"0.weight", "3.weight"}
    assert (got["3.weight"] - want).abs().max() < 0.05 * want.abs().max()
    assert [q.requires_grad for q in net.parameters()] == [False, True, True, True]
    assert all(q.grad is None for q in net.parameters())
    whole = (torch.ones(2, 3, dtype=torch.int64),)
    assert Evidence(nn.Linear(3, 2), whole).slopes == {}


class Detached(nn.Module):
    """A network whose own code cuts the way back from the answer to its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6) -> (N, 3)."""
        return self.b(self.a(x).detach().relu())


def test_doing_without_slopes_is_told() -> None:
    """Where the answer has no slope the report, the table and the JSON of inspect say so, with PyTorch's reason."""
    torch.manual_seed(0)
    net, x = Detached().eval(), torch.randn(64, 6)
    told = compress.slim(net, x[:2], percent=0.5, round_to=1, calibration=x).report
    (note,) = (text for text in told.warnings if "no slopes" in text)
    assert told.cut.importance == "reconstruction"
    assert "does not require grad" in note
    steps = compress.slim(net, x[:2], percent=0.5, round_to=1, calibration=x, steps=2).report
    assert sum("no slopes" in text for text in steps.warnings) == 1
    found = inspection("net", analyse(net, (x[:2],)), importance="reconstruction", evidence=Evidence(net, (x,)))
    assert note in found.remarks
    assert note in json.loads(inspection_json(found))["remarks"]
    plain = compress.slim(net, x[:2], percent=0.5, round_to=1, calibration=x, importance="wanda").report
    assert not [text for text in plain.warnings if "slopes" in text]


def test_slopes_do_not_hang_on_the_size_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large inputs go through in smaller batches, to the same result but for the classes drawn."""
    net, x = _chain(), _inputs(512)
    whole = Evidence(net, (x,)).slopes["fc.weight"]
    monkeypatch.setattr("compress.importance.slopes.PIXELS", 192 * 10)
    parts = Evidence(net, (x,)).slopes["fc.weight"]
    assert (whole - parts).abs().max() < 0.1 * whole.abs().max()


def test_heads_leave_as_a_block() -> None:
    """A channel several inputs wide costs tr(G_BB (P_BB)^-1), and the rest is compensated for the whole block."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(500, 8, generator=generator, dtype=torch.float64) @ torch.randn(8, 8, generator=generator).double()
    w = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    s = x.mT @ x / len(x)

    def lost(gone: list[int]) -> float:
        kept = [i for i in range(8) if i not in gone]
        rest = x[:, gone] - x[:, kept] @ torch.linalg.lstsq(x[:, kept], x[:, gone]).solution
        return float((rest @ w[:, gone].mT).square().sum() / len(x))

    reader = Wide(torch.linalg.inv(s), w.mT @ w, 1.0, 4)
    first = [lost([2 * c, 2 * c + 1]) for c in range(4)]
    assert np.allclose(reader.costs().numpy(), first, rtol=1e-6)
    reader.remove(1)
    assert float(reader.costs()[3]) == pytest.approx(lost([2, 3, 6, 7]) - first[1], rel=1e-6)


def test_a_very_wide_layer_is_judged_by_variances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the covariance would be too large, a channel costs its inputs' variances times F-weighted weights."""
    monkeypatch.setattr("compress.importance.evidence.WIDE", 10)
    monkeypatch.setattr("compress.importance.reconstruction.EVEN", 0.0)
    torch.manual_seed(2)
    net = Net(lambda n, x: n.fc(n.a(x).relu().flatten(1)), a=nn.Conv2d(3, 5, 3), fc=nn.Linear(20, 4))
    x = torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    groups, weights = _weights(net, x)
    assert weights.evidence is not None
    z = net.a(x).relu().flatten(1).detach().double()
    w = net.fc.weight.detach().double()
    leans = torch.einsum("oi,op,pi->i", w, weights.evidence.slopes["fc.weight"], w)
    want = 0.5 * (z.var(0, correction=0) * leans).reshape(5, 4).sum(1)
    got = score(groups, weights, "reconstruction")[0]["a"]
    assert weights.evidence.reads["fc.weight"].covariance.shape == (20,)
    assert np.allclose(got, want.numpy(), rtol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["reconstruction", "wanda", "hessian", "taylor", "fpgm"])
def test_scores_are_the_same_on_a_gpu(name: str) -> None:
    """Statistics and search run where the tensors are."""
    net, x = _chain(), _inputs()
    want = _scores(net, name, x)
    got = _scores(net.cuda(), name, x.cuda())
    assert all(np.allclose(got[key], want[key], rtol=0.05, atol=1e-6) for key in want)


def test_a_copy_costs_nothing_until_its_twin_has_left() -> None:
    """Of two equal channels the first leaves free, the second does not."""
    net, x = _chain(), _inputs()
    net.a.weight.data[3], net.a.bias.data[3] = net.a.weight.data[2], net.a.bias.data[2]
    got = _scores(net, "reconstruction", x)["a"]
    first, second = sorted(got[[2, 3]])
    assert first < 0.01 * second
    assert np.array_equal(np.sort(got)[:1], [first])


def test_elimination_is_the_same_in_one_block_or_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting updates changes nothing but the time."""
    net, x = _chain(), _inputs()
    want = _scores(net, "reconstruction", x)["a"]
    monkeypatch.setattr("compress.importance.reconstruction.PENDING", 2)
    assert np.allclose(_scores(net, "reconstruction", x)["a"], want, rtol=1e-9)
    assert eliminate([], 3).tolist() == [0, 0, 0]


def test_what_is_missing_is_said() -> None:
    """Without inputs or labels the criteria that need them are refused, with what to do."""
    net, x = _chain(), _inputs()
    groups, weights = _weights(net, x, labels=False)
    with pytest.raises(UsageError, match="needs labels"):
        score(groups, weights, "taylor")
    bare = Weights(weights.tensors, weights.norm_scales)
    for name in ("activation", "apoz", "wanda", "hessian", "reconstruction", "taylor"):
        assert CRITERIA[name].needs
        with pytest.raises(UsageError, match="--calibration"):
            score(groups, bare, name)
    with pytest.raises(PlanError, match="no BatchNorm"):
        score(groups, bare, "bn")
    assert default_criterion(groups, weights) == "reconstruction"
    assert default_criterion(groups, bare) == "l2"


def test_evidence_of_a_submodule_has_its_names() -> None:
    """Where only a part is cut, its weights go by their names in that part."""
    net = nn.Sequential(nn.Conv2d(3, 6, 1), _chain().b)
    evidence = Evidence(net, (_inputs(),), submodule="1")
    assert set(evidence.reads) == {"weight"}
