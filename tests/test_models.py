"""The networks in models/, the images and the trained checkpoint that lie beside them."""

from __future__ import annotations

import gzip
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models"
CHECKPOINT = MODELS / "fashion_resnet14.pt"


def factory(arch: str) -> Callable[..., nn.Module]:
    """Load "file.py:factory" the way a path on the command line is loaded: alone, outside any package."""
    file, _, name = arch.partition(":")
    spec = importlib.util.spec_from_file_location(f"model_{Path(file).stem}", MODELS / Path(file).name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., nn.Module] = getattr(module, name)
    return found


def run(network: nn.Module, *shape: int) -> Tensor:
    """Return the logits of a fixed random batch of `shape`."""
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits: Tensor = network.eval()(images)
    return logits


def parameters(network: nn.Module) -> int:
    """Count the trainable numbers."""
    return sum(p.numel() for p in network.parameters())


# resnet18, vgg19 and preresnet164 are also published, as 11,173,962, 20.04 M and 1.70 M.
NETWORKS = [
    ("resnet_cifar.py:resnet18", (3, 32, 32), 10, 11_173_962),
    ("resnet.py:resnet14", (3, 32, 32), 10, 175_258),
    ("resnet.py:resnet20", (3, 32, 32), 10, 272_474),
    ("resnet.py:resnet56", (3, 32, 32), 10, 855_770),
    ("vgg.py:vgg11", (3, 32, 32), 10, 9_228_362),
    ("vgg.py:vgg13", (3, 32, 32), 10, 9_413_066),
    ("vgg.py:vgg16", (3, 32, 32), 10, 14_724_042),
    ("vgg.py:vgg19", (3, 32, 32), 10, 20_035_018),
    ("preresnet.py:preresnet", (3, 32, 32), 10, 1_703_258),
    ("preresnet.py:preresnet164", (3, 32, 32), 10, 1_703_258),
    ("preresnet.py:preresnet29", (3, 32, 32), 10, 312_218),
    ("densenet.py:densenet40", (3, 32, 32), 10, 1_059_298),
    ("convnet.py:convnet", (1, 28, 28), 10, 87_114),
    ("mlp.py:mlp", (1, 28, 28), 10, 199_210),
    ("pairnet.py:pairnet", (2, 28, 28), 2, 404_930),
]


@pytest.mark.parametrize(("arch", "shape", "classes", "count"), NETWORKS, ids=[arch for arch, *_ in NETWORKS])
def test_defaults_give_the_named_network(arch: str, shape: tuple[int, ...], classes: int, count: int) -> None:
    """Without options every factory builds the network it is named after: logits' shape and number of parameters."""
    network = factory(arch)()
    assert parameters(network) == count
    logits = run(network, 2, *shape)
    assert logits.shape == (2, classes)
    assert logits.isfinite().all()


@pytest.mark.parametrize("arch", [arch for arch, shape, *_ in NETWORKS if shape[0] == 3 and "164" not in arch])
def test_classes_and_channels_are_options(arch: str) -> None:
    """Every image network takes grey 28x28 images and any number of classes."""
    assert run(factory(arch)(num_classes=7, in_channels=1), 2, 1, 28, 28).shape == (2, 7)


def test_resnet18_has_the_module_names_of_its_experiment() -> None:
    """layer1 to layer4, a `shortcut` Sequential in every block (empty where the shape stays), and a `linear` head."""
    network = factory("resnet_cifar.py:resnet18")(width=8)
    assert [name for name, _ in network.named_children()] == [
        "conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "linear",
    ]  # fmt: skip
    shortcuts = {name: m for name, m in network.named_modules() if name.endswith(".shortcut")}
    assert len(shortcuts) == 8
    assert all(isinstance(m, nn.Sequential) for m in shortcuts.values())
    assert {name for name, m in shortcuts.items() if len(m)} == {f"layer{i}.0.shortcut" for i in (2, 3, 4)}
    last = dict(factory("resnet_cifar.py:resnet18")().named_modules())["layer2.1.conv2"]
    assert last.weight.shape == (128, 128, 3, 3)


CUT = [
    ("vgg.py:vgg11", (3, 32, 32), (8, "M", 5, "M", 7, 6, "M", 9, 4, "M", 3, 2)),
    ("convnet.py:convnet", (1, 28, 28), (8, 16, 32)),
    ("mlp.py:mlp", (1, 28, 28), (50, 100)),
    ("pairnet.py:pairnet", (2, 28, 28), (32, 64, 17)),
]


@pytest.mark.parametrize(("arch", "shape", "cfg"), CUT, ids=[arch for arch, *_ in CUT])
def test_cfg_sets_the_widths(arch: str, shape: tuple[int, ...], cfg: tuple[int | str, ...]) -> None:
    """The convolutions, or the hidden Linears, have exactly the widths that `cfg` lists; a list from JSON will do."""
    network = factory(arch)(cfg=json.loads(json.dumps(cfg)))
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    linears = [m for m in network.modules() if isinstance(m, nn.Linear)]
    widths = [m.out_channels for m in layers] or [m.out_features for m in linears[:-1]]
    assert widths == [entry for entry in cfg if entry != "M"]
    assert len(run(network, 2, *shape)) == 2


def test_convnet_flattens_to_the_numbers_of_its_experiment() -> None:
    """Widths 32, 64, 64 flatten to 3136 numbers and 8, 16, 32 to 1568."""
    build = factory("convnet.py:convnet")
    assert [build(**options).get_submodule("fc").in_features for options in ({}, {"cfg": (8, 16, 32)})] == [3136, 1568]


SELECTING = [
    # architecture, widths of the uncut network, which of them are selections
    ("preresnet.py:preresnet29", factory("preresnet.py:default_cfg"), (3,), slice(None, None, 3)),
    ("densenet.py:densenet40", factory("densenet.py:default_cfg"), (12, 12), slice(None)),
]


@pytest.mark.parametrize(("arch", "widths", "size", "selections"), SELECTING, ids=[arch for arch, *_ in SELECTING])
def test_selection_equals_a_zeroed_norm(
    arch: str, widths: Callable[..., list[int]], size: tuple[int, ...], selections: slice
) -> None:
    """Channels that a selection leaves out count as if their BatchNorm had given zero, in every layer."""
    whole = factory(arch)()
    state = whole.state_dict()
    selected = []
    for name in [name for name, _ in whole.named_modules() if name.endswith("select")]:
        prefix = name.removesuffix("select")
        norm = next(prefix + leaf for leaf in ("bn1", "bn") if f"{prefix}{leaf}.weight" in state)
        leaves = ("conv1", "conv") if prefix else ("fc",)
        reader = next(f"{prefix}{leaf}.weight" for leaf in leaves if f"{prefix}{leaf}.weight" in state)
        channels = torch.arange(len(state[f"{norm}.weight"]))
        kept = channels[channels % 5 != 2]
        state[f"{norm}.weight"][channels % 5 == 2] = 0
        state[f"{norm}.bias"][channels % 5 == 2] = 0
        selected.append((name, reader, kept))
    cfg = widths(*size)
    cfg[selections] = [len(kept) for *_, kept in selected]
    small = factory(arch)(cfg=cfg)
    narrow = {reader: state[reader][:, kept] for _, reader, kept in selected}
    small.load_state_dict(state | narrow | {f"{name}.kept": kept for name, _, kept in selected})
    assert parameters(small) < parameters(whole)
    torch.testing.assert_close(run(small, 2, 3, 32, 32), run(whole, 2, 3, 32, 32), rtol=1e-4, atol=1e-5)


BAD = [
    ("vgg.py:vgg16", {"cfg": (8, "P")}, 'write widths and "M"'),
    ("preresnet.py:preresnet", {"depth": 30}, "9 n \\+ 2, got 30"),
    ("preresnet.py:preresnet29", {"cfg": [16, 16]}, "cfg has 2 widths; depth 29 needs 28"),
    ("preresnet.py:preresnet29", {"cfg": [99] * 28}, "selects 99 of 16"),
    ("densenet.py:densenet40", {"cfg": [24]}, "cfg has 1 widths; depth 40 needs 39"),
]


@pytest.mark.parametrize(("arch", "options", "message"), BAD)
def test_an_impossible_option_is_refused(arch: str, options: dict[str, Any], message: str) -> None:
    """A width list or depth that fits no network is a ValueError that names the numbers."""
    with pytest.raises(ValueError, match=message):
        factory(arch)(**options)


@pytest.mark.parametrize(("name", "count"), [("calibration", 1000), ("test", 2000)])
def test_shipped_images_are_balanced_bytes(name: str, count: int) -> None:
    """Each file holds (N, 28, 28, 1) bytes and as many labels, the same number of every class."""
    with np.load(MODELS / "fashion-mnist" / f"{name}.npz") as data:
        assert data["x"].shape == (count, 28, 28, 1)
        assert data["x"].dtype == np.uint8
        assert data["y"].dtype == np.int64
        assert np.bincount(data["y"]).tolist() == [count // 10] * 10
    assert len(json.loads((MODELS / "fashion-mnist" / "classes.json").read_text("utf-8"))) == 10


def load_checkpoint() -> tuple[dict[str, Any], nn.Module]:
    """Return the checkpoint, and its network with its weights."""
    checkpoint: dict[str, Any] = torch.load(CHECKPOINT, weights_only=True)
    network = factory(checkpoint["arch"])(**checkpoint["arch_options"])
    network.load_state_dict(checkpoint["state_dict"])
    return checkpoint, network.eval()


def accuracy(checkpoint: dict[str, Any], network: nn.Module) -> float:
    """Return the fraction of the shipped test images that `network` gets right."""
    with np.load(MODELS / "fashion-mnist" / "test.npz") as data:
        images, labels = torch.tensor(data["x"]).permute(0, 3, 1, 2) / 255, torch.tensor(data["y"])
    mean, std = (torch.tensor(checkpoint[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        return float((network((images - mean) / std).argmax(1) == labels).float().mean())


def test_checkpoint_is_plain_and_good() -> None:
    """It loads without pickled code, fits the architecture it names, and passes 88 % on the shipped images."""
    checkpoint, network = load_checkpoint()
    assert run(network, *checkpoint["input_shape"]).shape == (1, 10)
    assert CHECKPOINT.stat().st_size < 4_000_000
    assert accuracy(checkpoint, network) > 0.88


def test_half_of_the_checkpoints_scales_can_go() -> None:
    """Zeroing the lower half of all BatchNorm scales, and their biases, costs at most three points."""
    checkpoint, network = load_checkpoint()
    before = accuracy(checkpoint, network)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    scales = torch.cat([m.weight.detach().abs() for m in norms]).sort().values
    threshold = scales[int(0.5 * len(scales))]
    for norm in norms:
        gone = norm.weight.detach().abs() <= threshold
        norm.weight.data[gone] = 0
        norm.bias.data[gone] = 0
    assert accuracy(checkpoint, network) > before - 0.03


def write_idx(folder: Path, count: int) -> None:
    """Write a Fashion-MNIST of `count` random images a split."""
    rng = np.random.default_rng(0)
    for split in ("train", "t10k"):
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
            body = rng.integers(0, 10, shape, np.uint8).tobytes()
            (folder / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + body))


def script(name: str, *options: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts in models/ inside `folder`."""
    command = [sys.executable, str(MODELS / name), *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_training_writes_a_checkpoint_of_the_same_form(tmp_path: Path) -> None:
    """The script that made the shipped checkpoint still makes one with the same keys, and pushes scales down."""
    write_idx(tmp_path, 64)
    options = ["--data", ".", "--batch", "16", "--epochs", "1", "--sparsity", "1", "--option", "width=4"]
    options += ["--option", "in_channels=1", "--out", "small.pt", "--arch", str(MODELS / "resnet.py:resnet14")]
    done = script("train.py", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".gz"} == {"small.pt"}
    made, shipped = (torch.load(path, weights_only=True) for path in (tmp_path / "small.pt", CHECKPOINT))
    assert made.keys() == shipped.keys()
    assert made["state_dict"].keys() == shipped["state_dict"].keys()
    assert made["arch_options"] == {"width": 4, "in_channels": 1}
    assert made["state_dict"]["layer1.0.bn1.weight"].mean() < 0.45
    again = script("train.py", *options, "--start", "small.pt", "--shifts", "--lr", "1e-9", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    later = torch.load(tmp_path / "small.pt", weights_only=True)["state_dict"]
    torch.testing.assert_close(later["linear.weight"], made["state_dict"]["linear.weight"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("train.py", ["--out", "absent/x.pt"], "the folder absent does not exist"),
        ("train.py", ["--out", "x.pt", "--option", "width"], "write NAME=VALUE"),
        ("train.py", ["--out", "x.pt", "--option", "width=wide"], "not JSON"),
        ("train.py", ["--out", "x.pt", "--epochs", "0"], "must be at least 1"),
        ("train.py", ["--out", "x.pt", "--data", "absent"], "cannot read absent"),
        ("make_images.py", ["--out", ".", "--data", "absent"], "cannot read absent"),
    ],
)
def test_a_mistake_is_one_sentence(name: str, options: list[str], message: str, tmp_path: Path) -> None:
    """A mistake on a script's command line is a sentence without a traceback, and leaves no file."""
    done = script(name, *options, folder=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
