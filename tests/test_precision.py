"""Variants in bfloat16: the answers are those of float32, and what cannot be kept so is computed in float32."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core.errors import DataError
from compress.core.progress import Silent
from compress.evaluation import precision
from compress.evaluation.precision import Policy
from compress.evaluation.resumed import Bench
from compress.evaluation.variants import Measured, Variant, measure
from compress.graph.analyse import analyse
from compress.graph.narrow import Narrow, _unfolded, narrow, narrowed
from compress.graph.prefix import first_reading, recorded
from compress.graph.residual import blocks
from compress.surgery.outputs import layer_of, without_outputs
from tests.zoo.explored import files_in, images, network, run

ALWAYS = Policy(worth=0, gain=float("inf"))
EXAMPLE = (torch.rand(2, 1, 8, 8),)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with net.py, weights net.pt and 300 images, on a processor that is asked for bfloat16."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(precision, "supported", lambda: True)
    return files_in(tmp_path)


def points() -> list[nn.Module]:
    """The network without 0 ... 11 outputs of its last block."""
    net = network()
    layer = layer_of(net, analyse(net, EXAMPLE), "two.conv2")
    return [without_outputs(net, layer, np.arange(gone, 12)) for gone in range(12)]


def measured(net: nn.Module, nets: list[nn.Module], policy: Policy | None) -> Measured:
    """The networks on the 300 images."""
    steps = recorded(net, EXAMPLE)
    variants = [Variant(n, first_reading(steps, ["two.conv2.weight"])) for n in nets]
    return measure(net, variants, images(), Silent(), run=steps, policy=policy)


def test_answers_are_those_of_float32() -> None:
    """Among 3,600 answers some of bfloat16 alone are others; none that is counted, and few ran again."""
    net, nets = network(), points()
    want, found = measured(net, nets, None), measured(net, nets, ALWAYS)
    assert (want.precision.narrow, found.precision.narrow) == (False, True)
    for a, b in zip(want.variants, found.variants, strict=True):
        assert (a.images, a.top1, a.agreement) == (b.images, b.top1, b.agreement)
        assert a.loss == pytest.approx(b.loss, rel=1e-3)
    assert found.original == replace(want.original, loss=found.original.loss)
    assert found.original.loss == pytest.approx(want.original.loss, rel=1e-12)  # kernels sum chunks in their own orders
    assert [v.loss for v in want.variants] != [v.loss for v in found.variants]
    how = found.precision
    assert 0 < how.again < how.answers / 4
    assert (how.answers, how.checked, how.differing) == (12 * 300, 4 * 128 + 128 + 44, 0)
    assert 0 < how.largest <= how.bound
    bench = Bench(net, recorded(net, EXAMPLE), [Variant(n, 0) for n in nets])
    x = torch.stack([image for image, _ in images().dataset])
    held = bench.original(x)[1]
    briefly = [bench.brief(n, narrow(x), narrowed(held), Narrow()).argmax(1) for n in range(12)]
    other = sum(int((bench.variant(n, x, held).argmax(1) != briefly[n]).sum()) for n in range(12))
    assert other > 0


def test_blocks_that_leave_are_left_out_in_bfloat16() -> None:
    """A network without a residual branch, or begun in the middle of it, answers in both as it does in float32."""
    net = network()
    steps = recorded(net, EXAMPLE)
    variants = [Variant(net, block.first, block.leaving) for block in blocks(steps)]
    assert len(variants) == 2
    want, found = (measure(net, variants, images(), Silent(), run=steps, policy=p) for p in (None, ALWAYS))
    assert found.precision.narrow
    for a, b in zip(want.variants, found.variants, strict=True):
        assert (a.top1, a.agreement) == (b.top1, b.agreement)
        assert a.loss == pytest.approx(b.loss, rel=1e-3)
    assert len({v.loss for v in (*want.variants, *found.variants)}) == 4


def test_a_bound_that_a_check_breaks_ends_bfloat16() -> None:
    """Where outputs lie further apart than was measured before, all is float32's, and the reason is told."""
    net, nets = network(), points()
    found = measured(net, nets, replace(ALWAYS, safety=1e-3))
    want = measured(net, nets, None)
    assert (found.precision.narrow, found.precision.answers) == (False, 0)
    assert "a check found outputs in bfloat16 off by" in found.precision.reason
    assert found.variants == want.variants
    assert found.images == 300


def test_images_in_doubt_can_cost_more_than_bfloat16_saves() -> None:
    """Where every lead is below the bound, bfloat16 is not used, and the figures are float32's bits."""
    net, nets = network(), points()
    found = measured(net, nets, Policy(worth=0, gain=1.0, safety=1e6))
    assert not found.precision.narrow
    assert found.precision.reason.startswith("bfloat16 takes ")
    assert found.variants == measured(net, nets, None).variants


class Typed(nn.Module):
    """Puts its logits into a tensor of float32, which takes no others."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 8, 8) -> (N, 5)."""
        return torch.zeros(len(x), 5).index_copy(1, torch.arange(5), self.body(x))


def test_a_network_that_needs_float32_gets_it() -> None:
    """Code that fails on bfloat16 is measured in float32, and the message of the failure is the reason."""
    net = Typed().eval()
    found = measure(net, [Variant(net, 0)], images(), Silent(), policy=ALWAYS)
    assert found.precision.reason.startswith("the network does not run in bfloat16: ")
    assert found.variants[0].loss == found.original.loss


def test_labels_that_do_not_fit_are_the_users_error() -> None:
    """A label beyond the classes is one sentence, not a failure of the trial."""
    net, data = network(), images()
    wrong = replace(data, dataset=[(image, 7) for image, _ in data.dataset])
    with pytest.raises(DataError, match="has the label 7"):
        measure(net, [Variant(net, 0)], wrong, Silent(), policy=ALWAYS)


def test_little_work_is_not_tried(folder: Path) -> None:
    """A sweep of a tiny network is float32, says so in the JSON and on the terminal."""
    result = run("sweep", "--layer", "conv", "--k", "0,9", "--data", "images.npz", "--json", "s.json")
    assert result.exit_code == 0, result.output
    told = json.loads((folder / "s.json").read_text(encoding="utf-8"))["precision"]
    assert (told["narrow"], told["reason"], told["answers"]) == (False, "too little work to try bfloat16", 0)
    assert "float32: too little work" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [*itertools.product([(3, 3), (1, 3), (5, 2)], [(1, 1), (2, 1)], [(1, 1), (0, 2)])],
)
def test_a_convolution_as_one_product(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    """Patches times kernels is the convolution, for any kernel, stride and padding; memory keeps channels last."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 4, 7, 6).double(), torch.randn(5, 4, *kernel).double(), torch.randn(5).double()
    got = _unfolded(x.contiguous(memory_format=torch.channels_last), weight, bias, stride, padding)
    torch.testing.assert_close(got, F.conv2d(x, weight, bias, stride, padding), rtol=1e-12, atol=1e-12)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_products_run_in_bfloat16_and_parameters_are_cast_once() -> None:
    """A short convolution and a long one give what bfloat16 gives, from weights that are kept."""
    torch.manual_seed(0)
    how, weight = Narrow(), nn.Parameter(torch.randn(4, 3, 3, 3))
    for width in (4, 12):
        x = torch.randn(2, 3, 8, width)
        args = (x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        with torch.no_grad():
            got = how(torch.ops.aten.convolution.default, args, {})
            want = F.conv2d(narrow(x).double(), narrow(weight).double(), padding=1)
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.double(), want, rtol=2**-8, atol=1e-2)
    assert len(how.parameters) == 1
