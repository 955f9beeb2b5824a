"""Reading state dicts: wrappers, prefixes, what is recorded beside them, and every way in which one can be bad."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from compress.checkpoint import build, load
from compress.core.errors import CheckpointError, UsageError

NET = """
from torch import nn

def net(width=4, in_channels=1):
    return nn.Sequential(nn.Conv2d(in_channels, width, 3), nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, 3))

def broken():
    raise RuntimeError("no luck")

def number():
    return 3
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A Python file with factories."""
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


@pytest.fixture(scope="module")
def squeezenet() -> nn.Module:
    """A small torchvision network with random weights."""
    torch.manual_seed(0)
    return models.squeezenet1_1(num_classes=4).eval()


def saved(tmp_path: Path, data: Any, name: str = "net.pt") -> Path:
    """Write `data` with torch.save."""
    path = tmp_path / name
    torch.save(data, path)
    return path


def same(found: nn.Module, expected: nn.Module) -> bool:
    """Whether two networks give equal outputs on a small image."""
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        return torch.equal(found(image), expected(image))


WRAPPED = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
    "model": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1), "acc": torch.tensor(0.5)},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "net": lambda state: {"net": state},
    "ema": lambda state: {"ema": {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in state.items()}}},
    "nested": lambda state: {"model": {"state_dict": {f"_orig_mod.module.{k}": v for k, v in state.items()}}},
    "lightning": lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrappers_and_prefixes_are_seen_through(kind: str, squeezenet: nn.Module, tmp_path: Path) -> None:
    """However training scripts wrap a state dict, the network and its outputs are the same."""
    network = load(saved(tmp_path, WRAPPED[kind](squeezenet.state_dict()), "net.pth.tar"))
    assert (network.kind, network.arch, network.arch_options) == (
        "state_dict",
        "torchvision:squeezenet1_1",
        {"num_classes": 4},
    )
    assert network.name == "net"
    assert network.example[0].shape == (2, 3, 224, 224)
    assert not network.module.training
    assert same(network.module, squeezenet)


def test_safetensors_and_old_torch_files_are_read(squeezenet: nn.Module, tmp_path: Path) -> None:
    """The content decides about the format: neither suffix names it."""
    from safetensors.torch import save_file

    save_file(squeezenet.state_dict(), tmp_path / "a.bin")
    torch.save(squeezenet.state_dict(), tmp_path / "b.bin", _use_new_zipfile_serialization=False)
    assert same(load(tmp_path / "a.bin").module, squeezenet)
    assert same(load(tmp_path / "b.bin").module, squeezenet)


def test_half_precision_becomes_float32_and_is_said(squeezenet: nn.Module, tmp_path: Path) -> None:
    """Weights are float32 whatever the file holds."""
    network = load(saved(tmp_path, {k: v.half() for k, v in squeezenet.state_dict().items()}))
    assert {value.dtype for value in network.module.parameters()} == {torch.float32}
    assert any("torch.float16" in note for note in network.notes)


def test_recorded_data_is_used(tmp_path: Path, source: Path) -> None:
    """Options, input shape, mean and std that lie beside the weights are taken as they are."""
    arch = f"{source}:net"
    data = {
        "state_dict": build(arch, {"width": 6}).state_dict(),
        "arch": arch,
        "arch_options": {"width": 6},
        "input_shape": [1, 1, 28, 28],
        "mean": [0.25],
        "std": [0.5],
    }
    network = load(saved(tmp_path, data), arch=arch)
    assert network.example[0].shape == (2, 1, 28, 28)
    assert network.arch_options == {"width": 6}
    assert network.preprocessing is not None
    assert (network.preprocessing.mean, network.preprocessing.std) == ((0.25,), (0.5,))
    assert any("1,1,28,28 (recorded" in note for note in network.notes)
    assert load(saved(tmp_path, data), trust=True).arch == arch
    with pytest.raises(CheckpointError, match=r"not run unless you say so[\s\S]*add --arch .*net.py:net"):
        load(saved(tmp_path, data))


def test_recorded_torchvision_name_is_used_and_unknown_names_are_noted(squeezenet: nn.Module, tmp_path: Path) -> None:
    """A known recorded name must fit; an unknown one is said and the tensors decide."""
    state = squeezenet.state_dict()
    assert load(saved(tmp_path, {"state_dict": state, "arch": "squeezenet1_1"})).arch == "torchvision:squeezenet1_1"
    assert any("'mynet'" in note for note in load(saved(tmp_path, {"state_dict": state, "arch": "mynet"})).notes)
    with pytest.raises(CheckpointError, match="does not fit torchvision:squeezenet1_0"):
        load(saved(tmp_path, {"state_dict": state, "arch": "squeezenet1_0"}))


def test_missing_and_unexpected_keys_are_named_and_counted(squeezenet: nn.Module, tmp_path: Path) -> None:
    """For an architecture named by the user, the error says which tensors do not fit, and how many."""
    state = dict(squeezenet.state_dict())
    for name in ("features.0.bias", "features.0.weight"):
        state[f"stem.{name}"] = state.pop(name)
    with pytest.raises(
        CheckpointError, match=r"lacks 2 \(features.0.weight, features.0.bias\); has in addition 2 \(stem"
    ):
        load(saved(tmp_path, state), arch="squeezenet1_1")


def test_options_that_contradict_the_tensors(squeezenet: nn.Module, tmp_path: Path) -> None:
    """A number of classes that the tensors do not have is refused, with and without a named architecture."""
    path = saved(tmp_path, squeezenet.state_dict())
    for arch in (None, "squeezenet1_1"):
        with pytest.raises(
            CheckpointError, match=r"with \{'num_classes': 9\}: .* shapes for 2 \(classifier.1.weight: \[4"
        ):
            load(path, arch=arch, num_classes=9)
    assert load(path, num_classes=4).arch_options == {"num_classes": 4}
    with pytest.raises(CheckpointError, match="holds a whole network"):
        load(saved(tmp_path, squeezenet), trust=True, arch="squeezenet1_1")


def test_files_without_batch_counters_load(tmp_path: Path) -> None:
    """Files from before BatchNorm counted batches lack only the counters."""
    net = models.shufflenet_v2_x0_5().eval()
    state = {name: value for name, value in net.state_dict().items() if "num_batches" not in name}
    assert same(load(saved(tmp_path, state)).module, net)


def test_nan_weights_name_the_tensor(squeezenet: nn.Module, tmp_path: Path) -> None:
    """A diverged training is found before anything else happens."""
    state = {name: value.clone() for name, value in squeezenet.state_dict().items()}
    state["features.3.squeeze.weight"][0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"features.3.squeeze.weight has 1 NaN values"):
        load(saved(tmp_path, state))


def test_unreadable_files_are_refused_in_a_sentence(squeezenet: nn.Module, tmp_path: Path) -> None:
    """Missing, empty, cut-short and foreign files each have their own message."""
    whole = saved(tmp_path, squeezenet.state_dict()).read_bytes()
    bad = tmp_path / "bad.pt"
    cases = {
        b"": "is empty",
        whole[: len(whole) // 2]: "cut short",
        b"hello world, this is text": "is not a checkpoint",
        (200).to_bytes(8, "little") + b'{"a": ': "not a whole safetensors",
        pickle.dumps({"a": 1}): "was not written by torch.save",
    }
    for content, message in cases.items():
        bad.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            load(bad)
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="is a folder"):
        load(tmp_path)


def test_foreign_zip_and_old_cut_short_files(squeezenet: nn.Module, tmp_path: Path) -> None:
    """A zip that torch did not write, and an old-format file without its end, are told apart from networks."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("readme.txt", "hi")
    with pytest.raises(CheckpointError, match=r"zip file, but not one that torch wrote \(it holds readme.txt\)"):
        load(tmp_path / "a.pt")
    old = tmp_path / "old.pt"
    torch.save(squeezenet.state_dict(), old, _use_new_zipfile_serialization=False)
    old.write_bytes(old.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"old\.pt"):
        load(old)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1, 2], "holds a list, not a state dict"),
        ({"epoch": 3}, r"holds no state dict \(its keys: epoch\)"),
        ({"state_dict": {"w": torch.ones(2)}, "input_shape": "big"}, "cannot be read"),
        ({"w": torch.ones(2)}, "fit none of torchvision"),
    ],
)
def test_wrong_contents(data: Any, message: str, tmp_path: Path) -> None:
    """Files that torch wrote but that hold no network's weights are refused."""
    with pytest.raises(CheckpointError, match=message):
        load(saved(tmp_path, data))


def test_pickled_modules_need_trust(squeezenet: nn.Module, tmp_path: Path) -> None:
    """The refusal names the class, says why, and how; with trust the module itself comes back."""
    path = saved(tmp_path, squeezenet)
    with pytest.raises(
        CheckpointError, match=r"pickled object \(it needs torchvision[\s\S]*runs whatever[\s\S]*--trust"
    ):
        load(path)
    network = load(path, trust=True)
    assert network.kind == "module"
    assert network.example[0].shape == (2, 3, 224, 224)
    assert same(network.module, squeezenet)
    assert same(load(saved(tmp_path, {"model": squeezenet, "epoch": 1}), trust=True).module, squeezenet)


def test_trusted_module_of_an_own_class_asks_for_its_shape(tmp_path: Path) -> None:
    """Nothing tells the input shape of an unknown class, so it is asked for."""
    path = saved(tmp_path, nn.Sequential(nn.Linear(5, 2)))
    with pytest.raises(CheckpointError, match=r"input shape[\s\S]*--input-shape"):
        load(path, trust=True)
    assert load(path, trust=True, input_shape=(1, 5)).example[0].shape == (2, 5)


def test_input_shape_is_asked_for_where_unknown_and_checked_where_known(
    squeezenet: nn.Module, source: Path, tmp_path: Path
) -> None:
    """A factory's network has no known shape; torchvision's takes 3-channel images only."""
    path = saved(tmp_path, build(f"{source}:net").state_dict())
    with pytest.raises(CheckpointError, match=r"cannot be known[\s\S]*--input-shape 1,3,224,224"):
        load(path, arch=f"{source}:net")
    assert load(path, arch=f"{source}:net", input_shape=(1, 1, 9, 9)).example[0].shape == (2, 1, 9, 9)
    path = saved(tmp_path, squeezenet.state_dict())
    for shape in ((1, 1, 64, 64), (3, 64, 64)):
        with pytest.raises(UsageError, match="takes images of 3 channels"):
            load(path, input_shape=shape)
    with pytest.raises(UsageError, match="is not two or more positive numbers"):
        load(path, input_shape=(1, 3, 0, 64))


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("resnet81", {}, r"no classification network 'resnet81'[\s\S]*did you mean resnet"),
        ("hub:thing", {}, "names no architecture"),
        ("squeezenet1_1", {"depth": 3}, r"squeezenet1_1 cannot be built with"),
        ("none.py:net", {}, "none.py does not exist"),
        ("{source}:nett", {}, r"has no function 'nett'[\s\S]*net"),
        ("{source}", {}, "no function in it"),
        ("{source}:net", {"depth": 3}, r"cannot be called with \{'depth': 3\}"),
        ("{source}:broken", {}, "failed: RuntimeError: no luck"),
        ("{source}:number", {}, "returned a int, not a torch.nn.Module"),
    ],
)
def test_bad_architectures(arch: str, options: dict[str, Any], message: str, source: Path, tmp_path: Path) -> None:
    """Every way to name an architecture wrongly is answered with what to write instead."""
    path = saved(tmp_path, {"w": torch.ones(2)})
    with pytest.raises(CheckpointError, match=message):
        load(path, arch=arch.format(source=source), arch_options=options)


def test_files_that_do_not_run_are_reported(tmp_path: Path) -> None:
    """A syntax error in the user's file is the user's, with its line."""
    (tmp_path / "bad.py").write_text("def net(:\n")
    with pytest.raises(CheckpointError, match=r"bad\.py cannot be executed: SyntaxError"):
        load(saved(tmp_path, {"w": torch.ones(2)}), arch=f"{tmp_path / 'bad.py'}:net")


def test_missing_timm_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Package timm is optional; asking for one of its networks without it says what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(CheckpointError, match="needs the package timm"):
        load(saved(tmp_path, {"w": torch.ones(2)}), arch="timm:resnet10t")


def test_timm_networks_load(tmp_path: Path) -> None:
    """A timm name gives the network, its number of classes from the tensors, and timm's preprocessing."""
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_resnet", num_classes=7).eval()
    network = load(saved(tmp_path, net.state_dict()), arch="timm:test_resnet")
    assert (network.arch, network.arch_options) == ("timm:test_resnet", {"num_classes": 7})
    assert network.preprocessing is not None
    assert "timm" in network.preprocessing.source
    assert same(network.module, net)
    with pytest.raises(CheckpointError, match="timm cannot build 'test_resnot'"):
        load(saved(tmp_path, net.state_dict()), arch="timm:test_resnot")
