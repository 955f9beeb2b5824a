"""Architectures are found from keys and shapes alone, or the nearest ones are shown with what differs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torchvision import models

from compress.checkpoint import build, identify, load
from compress.checkpoint.skeleton import torchvision_shapes
from compress.core.errors import CheckpointError

LOOK_ALIKES = (
    "resnet18", "resnet34", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
    "vgg11", "vgg11_bn", "vgg16", "vgg19", "efficientnet_b0", "efficientnet_b1", "densenet121", "regnet_y_400mf",
    "mobilenet_v2", "mobilenet_v3_large", "googlenet", "inception_v3", "convnext_tiny", "vit_b_16",
    "shufflenet_v2_x1_0",
)  # fmt: skip


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_each_is_told_from_its_relatives(name: str) -> None:
    """With seven classes and one input channel, read off the tensors, every one of these is found."""
    options = {"in_channels": 1, "num_classes": 7}
    found = identify.identify(torchvision_shapes(name, tuple(options.items())))
    assert (found.arch.name, found.options) == (name, options)
    assert found.difference.count == 0


def test_no_match_lists_the_nearest_and_what_differs() -> None:
    """The user sees which architectures come close, which tensors differ, and how many."""
    shapes = {name: shape for name, shape in torchvision_shapes("resnet34").items() if not name.startswith("layer2.1")}
    with pytest.raises(CheckpointError, match=r"fit none of[\s\S]*resnet34: the file lacks 10 \([\s\S]*and \d+ more\)"):
        identify.identify(shapes)


def test_ambiguity_lists_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two architectures have equal tensors, neither is taken."""
    monkeypatch.setattr(identify, "_by_likeness", lambda found: [["alexnet", "alexnet"]])
    with pytest.raises(CheckpointError, match=r"several architectures alike: alexnet, alexnet[\s\S]*--arch alexnet"):
        identify.identify(torchvision_shapes("alexnet"))


def test_dropped_auxiliary_heads_are_switched_off(tmp_path: Path) -> None:
    """A googlenet saved without the heads that only training uses is still a googlenet."""
    state = {k: v for k, v in build("googlenet", {"num_classes": 5}).state_dict().items() if not k.startswith("aux")}
    torch.save(state, tmp_path / "net.pt")
    network = load(tmp_path / "net.pt")
    assert (network.arch, network.arch_options) == (
        "torchvision:googlenet",
        {"num_classes": 5, "aux_logits": False},
    )


def test_known_sizes_and_preprocessing_come_with_the_architecture(tmp_path: Path) -> None:
    """inception_v3 takes 299 pixels, and its steps say which weights they are from."""
    torch.save(build("inception_v3").state_dict(), tmp_path / "net.pt")
    network = load(tmp_path / "net.pt")
    assert network.example[0].shape == (2, 3, 299, 299)
    assert network.preprocessing is not None
    assert (network.preprocessing.crop, len(network.preprocessing.mean)) == (299, 3)
    assert "Inception_V3_Weights" in network.preprocessing.source


def test_grey_networks_get_no_colour_statistics(tmp_path: Path) -> None:
    """A first convolution that reads one channel is taken over, and RGB mean and std are not."""
    net = models.resnet18(num_classes=3)
    net.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    torch.save(net.eval().state_dict(), tmp_path / "net.pt")
    network = load(tmp_path / "net.pt")
    image = torch.randn(2, 1, 40, 40)
    assert network.example[0].shape == (2, 1, 224, 224)
    assert torch.equal(network.module(image), net(image))
    assert network.preprocessing is not None
    assert network.preprocessing.mean == ()


def test_old_names_are_read_as_torchvision_reads_them(tmp_path: Path) -> None:
    """Published densenets have key names from before 2018, which torchvision renames when it loads them."""
    torch.manual_seed(0)
    net = models.densenet121(num_classes=3).eval()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): value
        for name, value in net.state_dict().items()
        if "num_batches" not in name
    }
    torch.save(old, tmp_path / "net.pth")
    network = load(tmp_path / "net.pth")
    image = torch.randn(2, 3, 40, 40)
    assert network.arch == "torchvision:densenet121"
    with torch.no_grad():
        torch.testing.assert_close(network.module(image), net(image))


def test_switches_that_no_tensor_shows_are_said(tmp_path: Path) -> None:
    """Published googlenet weights go with a first step that other files leave out; nobody is left to guess."""
    state = {name: value for name, value in build("googlenet").state_dict().items() if not name.startswith("aux")}
    published = tmp_path / models.GoogLeNet_Weights.DEFAULT.url.rpartition("/")[2]
    for path, expected in ((tmp_path / "net.pt", False), (published, True)):
        torch.save(state, path)
        network = load(path)
        assert network.module.transform_input is expected
        assert network.arch_options.get("transform_input", False) is expected
        assert any("transform_input=True" in note for note in network.notes)


def test_identifying_leaves_the_random_state_alone() -> None:
    """Networks are built to look at them; nobody's seed moves."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    build("mnasnet0_5")
    assert torch.equal(before, torch.get_rng_state())
