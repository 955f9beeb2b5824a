"""The stages together: what goes in comes out smaller, saved, loaded, replayed, and still trains."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import compress
from compress.core.errors import ExactnessError, PlanError, TraceError, UsageError
from compress.core.types import Plan
from compress.graph.analyse import analyse
from compress.pipeline import SlimOptions, run_slim
from compress.surgery.cut import dead_labels
from compress.surgery.network import composed
from compress.surgery.program import graph_of
from compress.surgery.verify import verify, worst

MODELS = Path(__file__).parent.parent / "models"


class Block(nn.Module):
    """A residual block with a bottleneck."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        return torch.relu(x + self.b(self.a(x)))


class Small(nn.Module):
    """A stem, two residual blocks, a head."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.body = nn.Sequential(Block(width), Block(width))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, 10)."""
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Reads(nn.Module):
    """A network that decides on values, which cannot be exported; its body can."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Small()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, 10)."""
        y = self.body(x)
        return y if float(y.sum()) > 0 else -y


def randomised(module: nn.Module) -> nn.Module:
    """Give BatchNorm layers different scales, so that there is an order."""
    torch.manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.1, 1.0)
            nn.init.normal_(layer.bias, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.eval()


@pytest.fixture
def module() -> nn.Module:
    """Return a small residual network with an order among its channels."""
    return randomised(Small())


@pytest.fixture
def x() -> Tensor:
    """Return two inputs for it."""
    return torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def options(path: Path, **given: object) -> SlimOptions:
    """Return options without latencies, at arbitrary widths."""
    return SlimOptions(checkpoint=path, bench=False, round_to=1, **given)  # type: ignore[arg-type]


def test_the_cut_network_is_of_the_same_class_and_trains(module: nn.Module, x: Tensor) -> None:
    """Slimming gives the user's class, which learns: the loss falls over a few steps and every parameter moves."""
    small = compress.slim(module, x, percent=0.5, round_to=8).model.train()
    assert type(small) is Small
    before = {name: p.detach().clone() for name, p in small.named_parameters()}
    optimiser = torch.optim.SGD(small.parameters(), lr=0.05)
    target = torch.tensor([3, 7])
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(small(x), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(not torch.equal(before[name], p) for name, p in small.named_parameters())


def test_the_original_is_left_untouched(module: nn.Module, x: Tensor) -> None:
    """Parameters, modes, hooks and outputs of the input model are bit for bit what they were."""
    module.body[0].train()
    state = {name: t.clone() for name, t in module.state_dict().items()}
    modes = [m.training for m in module.modules()]
    compress.slim(module, x, percent=0.5)
    assert all(torch.equal(state[name], t) for name, t in module.state_dict().items())
    assert modes == [m.training for m in module.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


@pytest.mark.parametrize("form", ["exported", "torchscript", "module"])
def test_every_form_is_cut_saved_and_cut_again(module: nn.Module, x: Tensor, form: str, tmp_path: Path) -> None:
    """A network that carries its own graph (or code) is cut, saved, read back with equal outputs, and cut further."""
    path = tmp_path / "net.pt"
    if form == "exported":
        torch.export.save(torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},)), path)
    elif form == "torchscript":
        torch.jit.trace(module, x).save(path)
    else:
        torch.save(module, path)
    trust = form == "module"
    saved, again, plan = tmp_path / "saved.pt", tmp_path / "again.pt", tmp_path / "plan.json"
    shape = (1, 1, 12, 12)
    first = run_slim(options(path, percent=0.5, save=saved, plan_out=plan, trust=trust, input_shape=shape))
    assert first.verdict is not None
    assert first.verdict.exact
    loaded = compress.load(saved)
    assert sum(p.numel() for p in loaded.parameters()) == first.costs_after.parameters
    replayed = compress.slim(module, x, plan=Plan.from_json(plan.read_text())).model
    with torch.no_grad():
        assert torch.allclose(loaded(x), replayed(x), rtol=1e-4, atol=1e-5)
    second = run_slim(options(saved, percent=0.3, save=again))
    assert second.costs_after.parameters < first.costs_after.parameters
    assert sum(p.numel() for p in compress.load(again).parameters()) == second.costs_after.parameters


def test_a_plan_replays_bit_for_bit(module: nn.Module, x: Tensor, tmp_path: Path) -> None:
    """The plan that was written, replayed, gives the same plan and the same tensors."""
    first = compress.slim(module, x, percent=0.4, round_to=1)
    text = first.plan.to_json()
    second = compress.slim(module, x, plan=Plan.from_json(text))
    assert second.plan.to_json() == text
    pairs = zip(first.model.state_dict().items(), second.model.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(t, u) for (a, t), (b, u) in pairs)


def test_two_cuts_are_one_plan(module: nn.Module, x: Tensor) -> None:
    """Cutting twice and cutting once by the composed plan give the same tensors."""
    first = compress.slim(module, x, percent=0.4, round_to=1)
    second = compress.slim(first.model, x, percent=0.4, round_to=1)
    once = compress.slim(module, x, plan=composed(first.plan, second.plan))
    assert all(torch.equal(t, second.model.state_dict()[name]) for name, t in once.model.state_dict().items())


def test_masked_and_cut_reach_the_same_accuracy(tmp_path: Path) -> None:
    """On real images accuracy after masking and after removal are identical, and the original keeps its own."""
    with np.load(MODELS / "fashion-mnist" / "test.npz") as images:
        np.savez(tmp_path / "some.npz", x=images["x"][:200], y=images["y"][:200])
    asked = options(
        MODELS / "fashion_resnet14.pt",
        arch=f"{MODELS / 'resnet.py'}:resnet14",
        percent=0.5,
        data=str(tmp_path / "some.npz"),
    )
    report = run_slim(asked)
    assert report.accuracy_original is not None
    assert report.accuracy_original.top1 > 0.88
    assert report.accuracy_masked is not None
    assert report.accuracy_pruned is not None
    assert report.accuracy_masked.top1 == report.accuracy_pruned.top1
    assert report.accuracy_masked.per_class == report.accuracy_pruned.per_class
    assert report.accuracy_masked.loss == pytest.approx(report.accuracy_pruned.loss, rel=1e-5)


def test_auxiliary_heads_are_cut_with_the_trunk() -> None:
    """Heads that only training runs read the trunk's channels too: the cut network still trains."""
    net = randomised(torchvision.models.googlenet(num_classes=5, init_weights=False, aux_logits=True))
    small = compress.slim(net, torch.randn(2, 3, 64, 64), percent=0.5, importance="l2", round_to=1).model.train()
    out = small(torch.randn(2, 3, 64, 64))
    (out.logits.sum() + out.aux_logits1.sum() + out.aux_logits2.sum()).backward()
    assert small.aux1.conv.conv.weight.grad is not None
    assert small.aux1.conv.conv.in_channels < net.aux1.conv.conv.in_channels


def test_one_submodule_is_cut_in_its_place(x: Tensor) -> None:
    """Only the named part loses parameters; the plan says where it belongs, and replays."""
    net = Reads()
    randomised(net)
    result = compress.slim(net, x, percent=0.5, submodule="body.body", round_to=1)
    assert result.plan.submodule == "body.body"
    assert result.model.body.stem.weight.shape == net.body.stem.weight.shape
    assert result.model.body.body[0].a[0].weight.shape[0] < 32
    again = compress.slim(net, x, plan=Plan.from_json(result.plan.to_json()))
    assert all(torch.equal(t, again.model.state_dict()[name]) for name, t in result.model.state_dict().items())
    with pytest.raises(UsageError, match="no submodule 'bady'"):
        compress.slim(net, x, percent=0.5, submodule="bady")


def test_code_that_reads_values_is_cut_where_it_can_be(x: Tensor) -> None:
    """A network that branches on its own output is analysed by running it; the branch pins only what it reads."""
    net = Reads()
    randomised(net)
    result = compress.slim(net, x, percent=0.5, round_to=1)
    assert result.report.verdict is not None
    assert result.report.verdict.exact
    assert result.report.costs_after.macs < 0.6 * result.report.costs_before.macs


def test_nothing_to_remove_is_an_error(module: nn.Module, x: Tensor) -> None:
    """A cut of less than one channel, and one in which everything is kept, say why they do nothing."""
    with pytest.raises(PlanError, match="less than one"):
        compress.slim(module, x, percent=0.0)
    with pytest.raises(PlanError, match="every group is pinned or kept"):
        compress.slim(module, x, percent=0.5, keep=["*"])
    with pytest.raises(UsageError, match=r"\[0, 1\)"):
        compress.slim(module, x, percent=1.0)


def test_a_wrong_input_shape_is_told(module: nn.Module) -> None:
    """An example that the network cannot read is an error that names its shape."""
    with pytest.raises(TraceError, match=r"\(2, 3, 12, 12\)"):
        compress.slim(module, torch.randn(2, 3, 12, 12), percent=0.5)


def test_the_report_of_a_replay_has_no_percent(module: nn.Module, x: Tensor) -> None:
    """A replayed plan is reported as one."""
    plan = compress.slim(module, x, percent=0.4, round_to=1).plan
    report = compress.slim(module, x, plan=replace(plan)).report
    assert report.cut.asked == "a replayed plan"
    assert report.cut.importance == "plan"
    assert json.loads(plan.to_json())["format"] == "compress-plan-1"


def test_a_head_of_zeros_is_checked_all_the_same(module: nn.Module, x: Tensor) -> None:
    """Where the output is zero whatever the cut does, the check gives the zeros values, and sees a wrong cut."""
    nn.init.zeros_(module.head.weight)
    nn.init.zeros_(module.head.bias)
    analysis = analyse(module, (x,))
    result = compress.slim(module, x, percent=0.5, round_to=1)
    assert result.report.verdict is not None
    assert result.report.verdict.exact
    assert not result.model.head.weight.any()
    dead = dead_labels(analysis, result.plan)
    with torch.no_grad():
        result.model.stem.weight.copy_(result.model.stem.weight.flip(0))
    assert not verify(module, result.model, (x,), analysis, dead).exact


def test_an_answer_that_is_nan_proves_nothing(module: nn.Module, x: Tensor) -> None:
    """Random weights may overflow: the error says that it is the network's own output, and not the cut."""
    with torch.no_grad():
        module.head.bias.fill_(torch.nan)
    with pytest.raises(ExactnessError, match=r"own output is NaN on the example"):
        compress.slim(module, x, percent=0.5)


@pytest.mark.parametrize("places", [1, 8])
def test_places_that_are_masked_with_infinity_have_to_be_the_same(places: int) -> None:
    """Equal infinities are no error, however many there are; a difference beside them, or another place, is seen."""
    want = torch.randn(2, 8, dtype=torch.float64)
    want[:, :places] = -torch.inf
    assert worst([want], [want.clone()]) == 0.0
    other = want.clone()
    other[0, 0] = 1.0
    assert worst([want], [other]) == math.inf
    if places < 8:
        other = want.clone()
        other[0, -1] += want[:, places:].abs().max()
        assert worst([want], [other]) == pytest.approx(1.0)


class Watches(nn.Module):
    """A network that puts hooks on its own layers when it first runs, and keeps a tensor as a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Small()
        self.scale = torch.ones(3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the answer, and what the hooks saw."""
        seen: list[Tensor] = []
        if not hasattr(self, "watched"):
            self.watched = True
            self.inner.body[0].register_forward_hook(lambda _m, _i, out: seen.append(out))
        return self.inner(x), *seen


def test_what_a_network_does_to_itself_is_undone(x: Tensor) -> None:
    """Hooks and flags that forward leaves on the network are gone after the analysis, together."""
    net = Watches()
    randomised(net)
    analyse(net, (x,))
    assert not hasattr(net, "watched")
    assert not net.inner.body[0]._forward_hooks
    assert compress.slim(net, x, percent=0.4, round_to=1).report.costs_after.parameters > 0
    assert not net.inner.body[0]._forward_hooks


def test_a_failed_export_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    """What torch.export prints about a network it cannot trace does not reach the terminal; its cause does."""

    class Picks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            """Branch on how many entries are positive."""
            found = x.flatten().nonzero()
            return x if len(found) > 3 else -x

    with pytest.raises(TraceError, match=r"torch\.export cannot trace the network"):
        graph_of(Picks(), (torch.randn(2, 1, 4, 4),))
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


@pytest.mark.parametrize("compiled", ["script", "trace", "a part"])
def test_torchscript_in_memory_is_refused_in_one_sentence(module: nn.Module, x: Tensor, compiled: str) -> None:
    """Its code cannot be looked into; the file of the whole network can be read."""
    ways = {
        "trace": lambda: torch.jit.trace(module, x),
        "script": lambda: torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))),
        "a part": lambda: nn.Sequential(nn.Conv2d(3, 3, 3), torch.jit.script(nn.Conv2d(3, 8, 3)), nn.Conv2d(8, 8, 3)),
    }
    with pytest.raises(TraceError, match=r"^(1|the network) is a TorchScript module"):
        compress.slim(ways[compiled](), x, percent=0.5, round_to=1)


def test_what_is_compiled_comes_back_as_its_own_class(module: nn.Module, x: Tensor) -> None:
    """`torch.compile` wraps the network; its own class is cut, with its own names in the plan."""
    result = compress.slim(torch.compile(module), x, percent=0.4, round_to=1)
    assert type(result.model) is type(module)
    assert set(result.plan.keep) <= set(dict(module.named_parameters()) | dict(module.named_buffers()))
