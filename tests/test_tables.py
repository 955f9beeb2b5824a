"""Tables that a module keeps as plain attributes (positions, say) are cut with the channels that they are added to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.budget import Limits
from compress.core.budgets import Percent
from compress.core.choosing import Scope
from compress.core.clock import Clock
from compress.export import export, load
from compress.graph.analyse import analyse
from compress.graph.modules import tensors_of
from compress.surgery.cut import dead_labels, plan_of
from compress.surgery.network import cut_network, replay
from compress.surgery.planned import Cut, CutOptions
from compress.surgery.program import cut_graph, graph_of
from compress.surgery.verify import verify


class Placed(nn.Module):
    """Adds a table of sines, which is no buffer, to its tokens; keeps another tensor that nothing reads."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(5, width), nn.Linear(width, 3)
        self.table = torch.sin(torch.arange(7)[:, None] * torch.linspace(0.1, 1.0, width))
        self.seen = torch.ones(width)

    def forward(self, x: Tensor) -> Tensor:
        """Run on x (N, 7, 5)."""
        return self.last(torch.relu(self.embed(x) + self.table))


class Unfollowed(Placed):
    """Its code insists on the width that it was made for."""

    def forward(self, x: Tensor) -> Tensor:
        """Run on x (N, 7, 5)."""
        return super().forward(x).view(-1, 7, 3) if self.embed.out_features == 16 else x


EXAMPLE = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))


def halved(module: nn.Module) -> Cut:
    """Cut every group by half, checked against the masked original."""
    return cut_network(module.eval(), (EXAMPLE,), CutOptions(budget=Percent(0.5), scope=Scope.LAYER), Clock())


@pytest.mark.parametrize("kind", [Placed, Unfollowed])
def test_a_table_is_cut_with_its_channels(kind: type[Placed], tmp_path: Path) -> None:
    """In the user's own class and in a graph; the file computes the same, and the original keeps its table."""
    torch.manual_seed(0)
    net = kind()
    cut = halved(net)
    assert cut.delivered.own is (kind is Placed)
    assert cut.delivered.verdict is not None
    assert cut.delivered.verdict.exact
    kept = cut.chosen.plan.keep["table"][1]
    assert torch.equal(cut.delivered.module.table, net.table[:, list(kept)])
    assert net.table.shape == (7, 16)
    export(cut.delivered.module, (EXAMPLE,), tmp_path / "net.onnx")
    (answer,) = load(tmp_path / "net.onnx")((EXAMPLE,))
    torch.testing.assert_close(answer, cut.delivered.module(EXAMPLE).detach())


@pytest.mark.parametrize("as_graph", [False, True])
def test_a_plan_is_replayed_on_a_fresh_network(as_graph: bool) -> None:
    """What was saved is a plan and a state: the table comes from the constructor, and is cut again."""
    torch.manual_seed(0)
    cut = halved(Placed())
    fresh = Placed().eval()
    again = replay(fresh, (EXAMPLE,), cut.chosen.plan, as_graph=as_graph)
    again.load_state_dict(cut.delivered.module.state_dict(), strict=False)  # a graph has the table in its state
    torch.testing.assert_close(again(EXAMPLE), cut.delivered.module(EXAMPLE))


def test_what_nothing_reads_has_no_channels() -> None:
    """A tensor that only lies there is in no group, and is not said to be unused."""
    analysis = analyse(Placed().eval(), (EXAMPLE,))
    assert "seen" not in analysis.shapes
    assert {m.parameter for g in analysis.groups for m in g.members if g.size == 16} == {
        "embed.weight", "embed.bias", "table", "last.weight",
    }  # fmt: skip


class Beside(nn.Module):
    """Expands a table as a tensor whose channels are others than those that the result is added to."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.embed, self.mix, self.last = nn.Linear(5, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.place = nn.Parameter(torch.randn(1, 16))

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.embed(x)
        if self.how == "expand":
            return self.last(self.mix(x) + self.place.expand_as(x))
        return self.last(
            self.mix(x).flatten(1).view_as(x) if self.how == "view" else self.mix(x).flatten(1).reshape_as(x)
        )


@pytest.mark.parametrize("how", ["expand", "view", "reshape"])
def test_sizes_taken_from_another_tensor_are_its_own_after_the_cut(how: str) -> None:
    """Such code cannot follow where both lose different numbers of channels; the graph can, at any batch size."""
    torch.manual_seed(0)
    net = Beside(how).eval()
    analysis = analyse(net, (EXAMPLE,))
    gone = [g.labels[: {"embed": 4}.get(g.name, 8)] for g in analysis.prunable]
    plan = plan_of(analysis, np.concatenate(gone))
    cut = cut_network(net, (EXAMPLE,), CutOptions(plan=plan), Clock())
    assert not cut.delivered.own
    assert cut.delivered.verdict is not None
    assert cut.delivered.verdict.exact
    state = cut.delivered.module.state_dict()
    assert (len(state["embed.weight"]), len(state["mix.weight"])) == (12, 8)
    assert cut.delivered.module(torch.randn(3, 7, 5)).shape == (3, 7, 3)


@pytest.mark.parametrize("how", ["expand", "view", "reshape"])
def test_a_layer_laid_out_as_what_it_reads_keeps_as_many_channels(how: str) -> None:
    """Where the choice is free, both lose as many, and the user's class follows; the report says so."""
    torch.manual_seed(0)
    limits = Limits(round_to=1, ratios=(("embed", 0.25),))
    cut = cut_network(Beside(how).eval(), (EXAMPLE,), CutOptions(budget=Percent(0.5), limits=limits), Clock())
    assert cut.delivered.own, cut.delivered.why
    assert "layers make as many channels as they read" in cut.delivered.why
    state = cut.delivered.module.state_dict()
    assert len(state["embed.weight"]) == len(state["mix.weight"]) < 16
    assert cut.delivered.verdict is not None
    assert cut.delivered.verdict.exact


class Long(nn.Module):
    """Knows more positions than its example has; another table is used up to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(5, 16, bias=False), nn.Linear(16, 3)
        self.place = nn.Parameter(torch.randn(1, 40, 16))

    def forward(self, x: Tensor) -> Tensor:
        """Run on up to 40 tokens."""
        return self.last(torch.relu(self.embed(x) + self.place[:, : x.shape[1]]))


def test_positions_beyond_the_example_stay() -> None:
    """The rows that seven tokens do not reach are needed by longer inputs; the channels leave."""
    torch.manual_seed(0)
    net = Long().eval()
    cut = halved(net)
    assert cut.delivered.module.place.shape == (1, 40, 8)
    assert cut.delivered.module(torch.randn(1, 30, 5)).shape == (1, 30, 3)
    (rows,) = [g for g in analyse(net, (EXAMPLE,)).groups if g.size == 33]
    assert [str(reason) for reason in rows.pinned] == ["the example does not reach it"]


def test_channels_that_are_only_summed_up_may_leave() -> None:
    """A layer without bias whose output is reduced is alone in its group as well, and goes somewhere."""

    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.only = nn.Linear(5, 16, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.only(x).relu().sum(-1)

    (group,) = [g for g in analyse(Summed().eval(), (EXAMPLE,)).groups if g.size == 16]
    assert group.prunable


class PaddedBetween(nn.Module):
    """An instance norm or a channel of ones, channels of zeros on both sides, and a layer norm over all of them."""

    def __init__(self, *, ones: bool) -> None:
        super().__init__()
        self.ones, width = ones, 6 + ones
        self.first, self.one = nn.Conv2d(3, 4, 1), nn.InstanceNorm2d(4, affine=True)
        self.two, self.last = nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x = self.first(x)
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1) if self.ones else self.one(x)
        return self.last(self.two(nn.functional.pad(x, (0, 0, 0, 0, 1, 1)).flatten(2).transpose(1, 2)))


@pytest.mark.parametrize("ones", [False, True])
def test_padding_leaves_the_masked_reference_too(ones: bool) -> None:
    """On meta tensors an instance norm saves nothing and `ones_like` takes a step more: the run is the same still."""
    torch.manual_seed(0)
    net, example = PaddedBetween(ones=ones).eval(), (torch.randn(2, 3, 5, 5),)
    analysis = analyse(net, example)
    (zeros,) = [g for g in analysis.prunable if {m.parameter for m in g.members} == {"last.weight"}]
    plan = plan_of(analysis, zeros.labels[:1])
    dead = dead_labels(analysis, plan)
    cut, _ = cut_graph(graph_of(net, example), example, plan)
    assert verify(net, cut, example, analysis, dead).max_relative_error < 1e-12


class Known(Placed):
    """Reads its buffer by another name too."""

    def __init__(self) -> None:
        super().__init__()
        table = self.table
        del self.table
        self.register_buffer("place", table)
        self.table = table

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        return super().forward(x) + self.place[:, :3]


def test_a_buffer_by_another_name_is_no_table_of_its_own() -> None:
    """One tensor has one set of labels, and is one tensor under both names after the cut."""
    torch.manual_seed(0)
    net = Known().eval()
    assert set(tensors_of(net)) == {"embed.weight", "embed.bias", "last.weight", "last.bias", "place", "seen"}
    cut = halved(net)
    assert cut.delivered.own
    assert cut.delivered.verdict is not None
    assert cut.delivered.verdict.exact
    assert cut.delivered.module.place is cut.delivered.module.table
    assert cut.delivered.module.place.shape[1] == cut.delivered.module.embed.out_features < 16
