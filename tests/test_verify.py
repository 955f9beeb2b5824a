"""`compress verify`, its twin in Python, and the safetensors file that holds weights and plan."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from typer.testing import CliRunner, Result

import compress
from compress.checkpoint import write_saved
from compress.cli import app
from compress.core.errors import ExportError, UsageError
from compress.core.types import Plan, Preprocessing
from compress.export import export
from compress.pipeline.deploy import preprocessing_json
from compress.report.comparison import Comparison, Side

SHAPE = (2, 1, 8, 8)
FACTORY = '''
"""A small network, as a user would hand it over."""
from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))
'''


def built() -> nn.Module:
    """The network that FACTORY builds, with fixed random weights."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network in every format, another network, and labelled images."""
    place = tmp_path_factory.mktemp("files")
    (place / "net.py").write_text(FACTORY, encoding="utf-8")
    torch.save(built().state_dict(), place / "net.pt")
    used = Preprocessing(mean=(0.5,), std=(0.25,))
    about = {"compress.input_shape": json.dumps(SHAPE), "compress.preprocessing": preprocessing_json(used)}
    for suffix in (".onnx", ".ts", ".pt2"):
        export(built(), (torch.zeros(SHAPE),), place / f"net{suffix}", about=about)
    other = built()
    with torch.no_grad():
        other[3].bias += torch.tensor([0.0, 9.0, 0.0])
    export(other, (torch.zeros(SHAPE),), place / "other.ts", about=about)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    np.savez(place / "images.npz", x=pixels, y=np.ones(20, dtype=np.int64))
    return place


def verify(folder: Path, *arguments: object) -> Result:
    """Run `compress verify`; files are named from the folder."""
    named = [str(folder / a) if isinstance(a, str) and (folder / a).exists() else str(a) for a in arguments]
    return CliRunner().invoke(app, ["verify", *named])


@pytest.mark.parametrize("pair", [("net.onnx", "net.ts"), ("net.ts", "net.pt2"), ("net.pt2", "net.onnx")])
def test_files_of_one_network_are_the_same(pair: tuple[str, str], folder: Path) -> None:
    """Any two formats of one network agree within 1e-4, with exit code 0."""
    result = verify(folder, *pair)
    assert result.exit_code == 0, result.output
    assert "the same" in result.stdout


def test_a_checkpoint_is_compared_with_its_file_on_images(folder: Path, tmp_path: Path) -> None:
    """With labelled images the JSON has the accuracy of both, prepared as the file says that it wants them."""
    arch = ("--arch", f"{folder / 'net.py'}:build", "--input-shape", "1,1,8,8")
    out = tmp_path / "found.json"
    result = verify(folder, "net.pt", "net.onnx", *arch, "--data", folder / "images.npz", "--json", out)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["same"] is True
    assert found["max_relative_error"] < 1e-5
    assert found["agreement"] == 1.0
    with np.load(folder / "images.npz") as archive:
        x = (torch.from_numpy(archive["x"]).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    right = float((built()(x).argmax(1) == 1).double().mean())
    assert [found[side]["accuracy"]["top1"] for side in ("first", "second")] == [pytest.approx(right)] * 2


def test_different_files_end_with_exit_code_2(folder: Path, tmp_path: Path) -> None:
    """A difference is said, written and is exit code 2; a wider tolerance, or an agreement that holds, is 0."""
    result = verify(folder, "net.onnx", "other.ts", "--json", tmp_path / "found.json")
    assert result.exit_code == 2, result.output
    assert "DIFFERENT" in result.stdout
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["same"] is False
    assert found["max_relative_error"] > 1
    assert verify(folder, "net.onnx", "other.ts", "--tolerance", 1000).exit_code == 0
    assert verify(folder, "net.onnx", "other.ts", "--agreement", 0.99, "--quiet").exit_code == 2
    assert verify(folder, "net.onnx", "net.ts", "--agreement", 1.0).exit_code == 0


def test_what_cannot_be_compared_is_one_sentence(folder: Path) -> None:
    """Missing files, damaged ones, and inputs of the wrong shape end with exit code 2 and an error on stderr."""
    (folder / "damaged.onnx").write_bytes(b"nothing")
    for arguments, words in (
        (("net.onnx", "none.ts"), "none.ts"),
        (("damaged.onnx", "net.ts"), "cannot load"),
        (("net.ts", "net.ts", "--input-shape", "1,1,9,9"), "does not run"),
    ):
        result = verify(folder, *arguments)
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("error: ")
        assert words in result.stderr


def test_modules_and_files_are_compared_in_python(folder: Path) -> None:
    """`compress.verify` takes modules and files; a module needs inputs, and NaN never agrees."""
    x = torch.randn(5, 1, 8, 8)
    assert compress.verify(built(), folder / "net.onnx", x).same
    found = compress.verify(built(), folder / "other.ts", x)
    assert not found.same
    assert found.max_relative_error == pytest.approx(9 / float(built()(x).detach().abs().max()), rel=1e-3)
    with pytest.raises(UsageError, match="inputs"):
        compress.verify(built(), folder / "net.onnx")
    with pytest.raises(ExportError, match="different shapes"):
        compress.verify(built(), nn.Flatten(), x)
    sides = Side("a", "ONNX", None), Side("b", "ONNX", None)
    strange = Comparison(
        first=sides[0], second=sides[1], max_relative_error=float("nan"), agreement=None, inputs=1, on="", tolerance=1.0
    )
    assert not strange.same


def test_the_exporter_is_public_under_its_folders_name(tmp_path: Path) -> None:
    """`compress.export` writes a file, also once the folder of that name has been imported."""
    x: Tensor = torch.zeros(2, 3)
    done = compress.export(nn.Linear(3, 2), x, tmp_path / "net.ts")
    assert done.max_relative_error <= 1e-4
    assert compress.export.load(tmp_path / "net.ts")((x,))[0].shape == (2, 2)


def test_weights_and_plan_as_safetensors(folder: Path, tmp_path: Path) -> None:
    """A cut saved as safetensors is read back bit for bit, by others as plain tensors, and can be cut again."""
    network, x = built(), torch.randn(3, 1, 8, 8)
    cut = compress.slim(network, x, percent=0.5, round_to=1)
    path, arch = tmp_path / "cut.safetensors", f"{folder / 'net.py'}:build"
    state = cut.model.state_dict()
    write_saved(path, state=state, plan=cut.plan, arch=arch, input_shape=(1, 1, 8, 8))
    with safe_open(path, "pt") as plain:
        assert set(plain.keys()) == set(state)
    again = compress.load(path, arch=arch)
    assert all(torch.equal(state[name], tensor) for name, tensor in again.state_dict().items())
    assert compress.verify(cut.model, again, x, tolerance=0.0).same
    further = ("--percent", "0.5", "--round-to", "1", "--no-bench", "--save", str(tmp_path / "more.safetensors"))
    result = CliRunner().invoke(app, ["slim", str(path), "--arch", arch, *further])
    assert result.exit_code == 0, result.output
    more = compress.load(tmp_path / "more.safetensors", arch=arch)
    assert sum(p.numel() for p in more.parameters()) < sum(p.numel() for p in again.parameters())


def test_a_graph_of_its_own_lies_in_the_safetensors_file(tmp_path: Path) -> None:
    """The program of a network without a source, and tied weights, survive; plain safetensors stay plain."""
    from compress.checkpoint.pickles import read_safetensors

    weight = torch.randn(3, 3)
    path = tmp_path / "own.safetensors"
    plan = Plan({"a": {0: (0, 2)}})
    write_saved(path, state={"a": weight, "b": weight}, plan=plan, arch=None, program=b"bytes", input_shape=(1, 3))
    data = read_safetensors(path)
    assert data["program"].numpy().tobytes() == b"bytes"
    assert Plan.from_json(data["plan"]) == plan
    assert torch.equal(data["state_dict"]["a"], data["state_dict"]["b"])
