"""Plans, what they refuse, how constants are rewritten, and that a wrong cut is never called exact."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from compress.core.choosing import Attention
from compress.core.errors import PlanError, TraceError
from compress.core.types import Plan
from compress.graph.analyse import Analysis, analyse
from compress.surgery.cut import dead_labels, kept_indices, plan_of
from compress.surgery.module import cut_module, sliced_copy
from compress.surgery.program import cut_graph, graph_of
from compress.surgery.silence import masked_output
from compress.surgery.verify import verify
from tests.zoo.cases import CASES
from tests.zoo.harness import Net, Snapshot, randomised
from tests.zoo.tricky import IMAGE, chain, residual


def _analysed(build: str = "chain") -> tuple[nn.Module, Analysis]:
    module = randomised(CASES[build]().module)
    return module, analyse(module, IMAGE)


def _dead(analysis: Analysis, **keep: tuple[int, ...]) -> np.ndarray:
    """Labels that leave where the named groups keep only the given channels."""
    gone: list[int] = []
    for group in analysis.prunable:
        if group.name in keep:
            gone += np.delete(group.labels, keep[group.name]).tolist()
    return dead_labels(analysis, plan_of(analysis, gone))


def test_plan_says_what_stays() -> None:
    """A plan names the kept indices of exactly the dimensions that change."""
    _, analysis = _analysed()
    group = next(g for g in analysis.prunable if g.name == "b")
    plan = plan_of(analysis, group.labels[[0, 5]])
    assert plan.keep == {"b.weight": {0: (1, 2, 3, 4)}, "b.bias": {0: (1, 2, 3, 4)}, "fc.weight": {1: (1, 2, 3, 4)}}


def test_plan_survives_its_text() -> None:
    """A plan read back from its text cuts the same network, bit for bit."""
    module, analysis = _analysed("residual")
    plan = plan_of(analysis, [int(g.labels[-1]) for g in analysis.prunable])
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
    one = cut_module(module, IMAGE, analysis, dead_labels(analysis, plan)).module
    fresh = analyse(module, IMAGE)
    two = cut_module(module, IMAGE, fresh, dead_labels(fresh, again)).module
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    assert torch.equal(one(*IMAGE), two(*IMAGE))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keep": {"a": 3}}', '{"keep": {"a": {"x": [1]}}}', '{"keep": 1}'])
def test_what_is_not_a_plan(text: str) -> None:
    """Anything else than a plan is refused in a sentence."""
    with pytest.raises(PlanError, match="not a plan"):
        Plan.from_json(text)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ({"other.weight": {0: (0,)}}, "does not have"),
        ({"b.weight": {0: ()}}, "not a rising choice"),
        ({"b.weight": {0: (0, 6)}}, "not a rising choice"),
        ({"b.weight": {0: (-1, 2)}}, "not a rising choice"),
        ({"b.weight": {0: (2, 1)}}, "not a rising choice"),
        ({"b.weight": {0: (1, 1)}}, "not a rising choice"),
        ({"b.weight": {7: (0,)}}, "not a rising choice"),
        ({"b.weight": {0: (0, 1)}}, "tears channels apart"),
        ({"b.weight": {0: (0, 1)}, "b.bias": {0: (0, 2)}, "fc.weight": {1: (0, 1)}}, "tears channels apart"),
        ({"fc.weight": {0: (0, 1)}, "fc.bias": {0: (0, 1)}}, "must stay: output of the network"),
        ({"a.weight": {1: (0, 1)}}, "must stay"),
        ({"a.weight": {2: (0, 1)}}, "must stay: kernel extent"),
    ],
)
def test_plans_that_do_not_fit(keep: dict[str, dict[int, tuple[int, ...]]], words: str) -> None:
    """A plan for another network, with wrong numbers, or that takes what must stay, is refused and says where."""
    _, analysis = _analysed()
    with pytest.raises(PlanError, match=words):
        dead_labels(analysis, Plan(keep))


def test_input_is_untouched() -> None:
    """Analysing, cutting and verifying leave tensors, modes, attributes and hooks as they were."""
    module = randomised(residual().module).train()
    module.get_submodule("a").eval()
    module.get_submodule("stem").weight.requires_grad_(False)  # type: ignore[union-attr]
    before = Snapshot.of(module)
    analysis = analyse(module, IMAGE)
    dead = _dead(analysis, a=(0, 1))
    cut = cut_module(module, IMAGE, analysis, dead)
    verify(module, cut.module, IMAGE, analysis, dead)
    cut_graph(graph_of(module, IMAGE), IMAGE, plan_of(analysis, np.unique(analysis.component[dead])))
    assert before.same(module)
    assert not cut.module.get_submodule("stem").weight.requires_grad  # type: ignore[union-attr]
    assert [m.training for m in cut.module.modules()] == [m.training for m in module.modules()]


def test_cut_shares_no_memory() -> None:
    """Training the cut network cannot move the original."""
    module, analysis = _analysed()
    cut = cut_module(module, IMAGE, analysis, _dead(analysis, a=(1, 3))).module
    owned = {t.untyped_storage().data_ptr() for t in module.state_dict().values()}
    assert not owned & {t.untyped_storage().data_ptr() for t in cut.state_dict().values()}


def test_layers_know_their_new_sizes() -> None:
    """The attributes of PyTorch's layers follow, so that printing, exporting and resetting them works."""
    module, analysis = _analysed()
    cut = cut_module(module, IMAGE, analysis, _dead(analysis, a=(1, 3), b=(0, 2, 4))).module
    assert (cut.a.out_channels, cut.bn.num_features, cut.b.in_channels, cut.b.out_channels) == (2, 2, 2, 3)
    assert cut.fc.in_features == 3
    assert type(cut) is type(module)


def test_same_values_stay() -> None:
    """What is kept keeps its values."""
    module, analysis = _analysed()
    cut = cut_module(module, IMAGE, analysis, _dead(analysis, a=(1, 3))).module
    assert torch.equal(cut.a.weight, module.a.weight[[1, 3]])
    assert torch.equal(cut.b.weight, module.b.weight[:, [1, 3]])
    assert torch.equal(cut.bn.running_var, module.bn.running_var[[1, 3]])


def test_masked_reference_is_what_masking_by_hand_gives() -> None:
    """For a plain chain the reference is the original with the readers' weights of removed channels at zero."""
    module, analysis = _analysed()
    dead = _dead(analysis, a=(0, 2, 5))
    (reference,) = masked_output(module, (IMAGE[0].double(),), analysis, dead)
    by_hand = randomised(chain().module).double()
    with torch.no_grad():
        by_hand.b.weight[:, [1, 3, 4, 6, 7]] = 0
        expected = by_hand(IMAGE[0].double())
    assert torch.allclose(reference, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wrong", ["kept", "order", "weight", "statistics", "scale"])
def test_wrong_cuts_are_found(wrong: str) -> None:
    """Other channels kept, another order, one weight or statistic off: the verdict is not exact."""
    module, analysis = _analysed()
    dead = _dead(analysis, a=(0, 2, 5))
    cut = sliced_copy(module, analysis.tensors, kept_indices(analysis, dead))
    assert verify(module, cut, IMAGE, analysis, dead).exact
    with torch.no_grad():
        if wrong == "kept":
            cut = sliced_copy(module, analysis.tensors, kept_indices(analysis, _dead(analysis, a=(0, 2, 6))))
        elif wrong == "order":
            cut.b.weight.copy_(cut.b.weight[:, [1, 0, 2]])
        elif wrong == "weight":
            cut.b.weight[0, 0, 0, 0] += 1e-3
        elif wrong == "statistics":
            cut.bn.running_mean.add_(1e-3)
        else:
            cut.fc.bias.mul_(1.001)
    verdict = verify(module, cut, IMAGE, analysis, dead)
    assert not verdict.exact
    assert verdict.max_relative_error > 1e-6


def test_not_a_number_is_never_exact() -> None:
    """A cut network that gives NaN, or another shape, does not pass."""
    module, analysis = _analysed()
    dead = _dead(analysis, a=(0, 2, 5))
    cut = sliced_copy(module, analysis.tensors, kept_indices(analysis, dead))
    cut.fc.bias.data[0] = float("nan")
    assert not verify(module, cut, IMAGE, analysis, dead).exact
    cut.fc = nn.Linear(6, 4)
    assert not verify(module, cut, IMAGE, analysis, dead).exact


@pytest.mark.parametrize(
    ("case", "operator", "expected"),
    [
        ("hard_coded_view", "aten.view", [-1, 4]),
        ("shuffled_by_layer", "aten.channel_shuffle", 2),
        ("whole_groups", "aten.conv2d", 2),
        ("padded_shortcut", "aten.pad", [0, 0, 0, 0, 0, 2]),
        ("group_norm_whole_groups", "aten.group_norm", 2),
        ("layer_norm", "aten.layer_norm", [4]),
        ("attention_by_dims", "aten.scaled_dot_product_attention", 0.5),
    ],
)
def test_constants_of_the_graph(case: str, operator: str, expected: object) -> None:
    """Sizes in views, groups, pads and norms become what is left; the softmax scale stays the original's."""
    made = CASES[case]()
    module = randomised(made.module)
    analysis = analyse(module, made.example, attention=made.attention)
    # The first half of each group's channels leaves.
    plan = plan_of(analysis, np.concatenate([g.labels[: g.size // 2] for g in analysis.prunable]))
    graph, _ = cut_graph(graph_of(module, made.example), made.example, plan)
    found = [
        item
        for node in graph.graph.nodes
        if operator == str(getattr(node.target, "overloadpacket", ""))
        for item in (*node.args, *node.kwargs.values())
    ]
    assert expected in found


def test_graph_keeps_its_batch_free_and_trains() -> None:
    """A rewritten graph takes other batch sizes, gives gradients, and its batch norms follow train() and eval()."""
    module, analysis = _analysed()
    plan = plan_of(analysis, analysis.prunable[0].labels[:4])
    graph, _ = cut_graph(graph_of(module, IMAGE), IMAGE, plan)
    assert graph(torch.randn(5, 3, 8, 8)).shape == (5, 5)
    before = graph.get_parameter("a.weight").shape, graph.get_buffer("bn.running_mean").clone()
    graph.train()
    graph(IMAGE[0]).sum().backward()
    assert graph.get_parameter("a.weight").grad is not None
    assert not torch.equal(graph.get_buffer("bn.running_mean"), before[1])
    graph.eval()
    assert torch.equal(graph(IMAGE[0]), graph(IMAGE[0]))


def test_attention_is_remembered() -> None:
    """A plan made by dimension carries that to whoever replays it."""
    case = CASES["attention_with_its_own_scale"]()
    analysis = analyse(randomised(case.module), case.example, attention=Attention.DIMS)
    plan = plan_of(analysis, analysis.prunable[0].labels[:1])
    assert Plan.from_json(plan.to_json()).attention is Attention.DIMS
    by_heads = analyse(case.module, case.example, attention=Attention.HEADS)
    with pytest.raises(PlanError):
        dead_labels(by_heads, dataclasses.replace(plan, attention=Attention.HEADS))


def test_analysis_takes_no_memory() -> None:
    """A network of 40 GB is analysed without a single one of its weights being there."""
    with torch.device("meta"):
        net = Net(lambda n, x: n.b(n.a(x).relu()), a=nn.Linear(1000, 5_000_000), b=nn.Linear(5_000_000, 1000))
    tracemalloc.start()
    analysis = analyse(net, (torch.empty(2, 1000, device="meta"),))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (group,) = analysis.prunable
    assert group.size == 5_000_000
    assert peak < 3e9


def test_cutting_makes_only_what_is_kept() -> None:
    """The original is never copied whole: what a cut allocates is the size of what it keeps."""
    made: list[int] = []
    plain = torch.Tensor.__deepcopy__

    def counted(tensor: torch.Tensor, memo: dict[int, object]) -> torch.Tensor:
        if id(tensor) not in memo:
            made.append(tensor.numel())
        return plain(tensor, memo)  # type: ignore[no-any-return, no-untyped-call]

    module, analysis = _analysed()
    dead = _dead(analysis, a=(0,), b=(0,))
    torch.Tensor.__deepcopy__ = counted  # type: ignore[method-assign, assignment]
    try:
        cut = sliced_copy(module, analysis.tensors, kept_indices(analysis, dead))
    finally:
        torch.Tensor.__deepcopy__ = plain  # type: ignore[method-assign]
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in module.parameters()) / 5
    assert not made


def test_wrong_input_is_a_sentence() -> None:
    """A shape that the network does not take is named."""
    with pytest.raises(TraceError, match=r"does not run on an input of shape \(2, 4, 8, 8\)"):
        analyse(chain().module, (torch.zeros(2, 4, 8, 8),))
