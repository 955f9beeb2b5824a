"""Networks that write into their inputs (`x -= mean`): nobody's images change, and every stage sees the same ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress.core.budgets import Percent
from compress.core.choosing import Scope
from compress.core.clock import Clock
from compress.evaluation.metrics import agreement, classes_of
from compress.export import export, load
from compress.surgery.network import cut_network
from compress.surgery.planned import CutOptions


class Shifted(nn.Module):
    """Scales and shifts its images in place before the first layer, as super-resolution networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(inplace=True), nn.Conv2d(16, 8, 3), nn.ReLU())
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        x *= 255.0
        x -= 100.0
        return self.last(self.body(x).mean((2, 3)))


@pytest.fixture
def network() -> nn.Module:
    """Random weights, in evaluation."""
    torch.manual_seed(0)
    return Shifted().eval()


def test_the_cut_is_compared_on_the_same_images(network: nn.Module) -> None:
    """The cut is exact, and the example is as it was."""
    images = torch.rand(2, 3, 8, 8)
    before = images.clone()
    cut = cut_network(network, (images,), CutOptions(budget=Percent(0.5), scope=Scope.LAYER), Clock())
    assert cut.delivered.own
    assert cut.delivered.verdict is not None
    assert cut.delivered.verdict.exact
    assert cut.delivered.module.last.in_features == 4
    assert torch.equal(images, before)


def test_images_can_be_judged_twice(network: nn.Module) -> None:
    """Answers are the same the second time, and the images are as they were."""
    images = torch.rand(4, 3, 8, 8)
    before = images.clone()
    first = classes_of(network, [images[:2], images[2:]])
    assert torch.equal(first, classes_of(network, [images[:2], images[2:]]))
    assert agreement(network, network, images) == 1.0
    assert torch.equal(images, before)


@pytest.mark.parametrize("suffix", [".onnx", ".ts", ".pt2"])
def test_a_file_computes_what_the_network_does(network: nn.Module, tmp_path: Path, suffix: str) -> None:
    """The exported file gives the same answer on the same images, which stay as they were."""
    images = torch.rand(2, 3, 8, 8)
    before = images.clone()
    path = tmp_path / f"net{suffix}"
    export(network, (images,), path)
    (answer,) = load(path)((images,))
    torch.testing.assert_close(answer, network(before.clone()).detach(), rtol=1e-4, atol=1e-4)
    assert torch.equal(images, before)
