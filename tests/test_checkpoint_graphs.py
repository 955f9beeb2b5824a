"""TorchScript archives, exported programs and our own saved files give networks without source code."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from compress.checkpoint import build, load, write_saved
from compress.core.errors import CheckpointError, UsageError
from compress.core.types import Plan, Preprocessing

IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


class Small(nn.Module):
    """A convolution, a norm and a flatten that keeps the batch free or writes it down."""

    def __init__(self, batch: int = -1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=8)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 8 * 8, 5)
        self.batch = batch

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of shape (N, 5)."""
        return self.head(torch.relu(self.norm(self.conv(x))).reshape(self.batch, 256))


def small(batch: int = -1) -> Small:
    """The same random network at every call."""
    torch.manual_seed(0)
    return Small(batch).eval()


def script(module: nn.Module, path: Path, how: str, image: Tensor = IMAGE) -> Path:
    """Write `module` as a TorchScript archive."""
    torch.jit.save(torch.jit.trace(module, image) if how == "trace" else torch.jit.script(module), path)
    return path


def exported(module: nn.Module, path: Path, *, dynamic: bool = True, image: Tensor = IMAGE) -> Path:
    """Write `module` as an exported program."""
    shapes: Any = ({0: torch.export.Dim("batch")},) if dynamic else None
    torch.export.save(torch.export.export(module, (image,), dynamic_shapes=shapes), path)
    return path


@pytest.mark.parametrize("how", ["trace", "script"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_torchscript_networks_keep_names_values_and_a_free_batch(name: str, how: str, tmp_path: Path) -> None:
    """The translated graph computes the same for other batch sizes, can be traced again, and its weights train."""
    torch.manual_seed(0)
    net = models.get_model(name, weights=None, num_classes=5).eval()
    network = load(script(net, tmp_path / "net.bin", how), input_shape=(1, 3, 64, 64))
    assert (network.kind, network.dynamic_batch, network.arch) == ("torchscript", True, None)
    assert {k for k, _ in network.module.named_parameters()} == {k for k, _ in net.named_parameters()}
    image = torch.randn(5, 3, 64, 64)
    torch.testing.assert_close(network.module(image), net(image))
    assert not any("local_scalar" in str(node.target) for node in graph_of(network.module))
    network.module(image).sum().backward()
    assert all(value.grad is not None for value in network.module.parameters())


def graph_of(module: Any) -> list[Any]:
    """The nodes of a graph module."""
    return list(module.graph.nodes)


def test_torchscript_default_shape_is_tried_and_said(tmp_path: Path) -> None:
    """Without --input-shape, 224 x 224 images of the first convolution's channels are taken, and a note says so."""
    net = models.squeezenet1_1(num_classes=5).eval()
    network = load(script(net, tmp_path / "net.ts", "trace"))
    assert network.example[0].shape == (2, 3, 224, 224)
    assert any("assumed" in note for note in network.notes)


def test_torchscript_with_its_batch_written_down_is_static(tmp_path: Path) -> None:
    """An archive whose code holds the batch size gives a network for that batch, and a note."""
    network = load(script(small(2), tmp_path / "net.ts", "trace"), input_shape=(1, 3, 64, 64))
    assert not network.dynamic_batch
    assert network.example[0].shape == (2, 3, 64, 64)
    assert any("batch 2 only" in note for note in network.notes)


class Wordy(Small):
    """Warns on every pass and returns a tuple, as scripted googlenets do."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return logits and None."""
        warnings.warn("always a tuple")  # noqa: B028 - TorchScript knows no stack level
        return torch.relu(self.norm(self.conv(x))).mean([2, 3]), None


def test_scripted_warnings_and_tuples_are_settled(tmp_path: Path) -> None:
    """Only the interpreter can warn, and a lone tensor in a tuple is the result."""
    net = Wordy().eval()
    network = load(script(net, tmp_path / "net.ts", "script"), input_shape=(1, 3, 64, 64))
    assert torch.equal(network.module(IMAGE), torch.relu(net.norm(net.conv(IMAGE))).mean([2, 3]))


def test_torchscript_shape_errors(tmp_path: Path) -> None:
    """A default that does not run asks for --input-shape; a given one that does not run is a usage error."""
    path = script(small(), tmp_path / "net.ts", "trace")
    with pytest.raises(CheckpointError, match=r"cannot be run on inputs of shape 1,3,224,224[\s\S]*--input-shape"):
        load(path)
    with pytest.raises(UsageError, match="cannot be run on inputs of shape 1,1,64,64"):
        load(path, input_shape=(1, 1, 64, 64))
    linear = script(nn.Linear(4, 2), tmp_path / "mlp.ts", "trace", torch.randn(2, 4))
    with pytest.raises(CheckpointError, match="cannot be known"):
        load(linear)
    assert load(linear, input_shape=(1, 4)).example[0].shape == (2, 4)


def test_torchscript_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """Frozen weights, NaN, damage and a needless --arch each have their sentence."""
    frozen = tmp_path / "frozen.ts"
    torch.jit.save(torch.jit.freeze(torch.jit.script(small())), frozen)
    with pytest.raises(CheckpointError, match="frozen into the code"):
        load(frozen)
    bad = small()
    bad.head.weight.data[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"head.weight has 1 NaN"):
        load(script(bad, tmp_path / "nan.ts", "trace"))
    whole = script(small(), tmp_path / "net.ts", "trace")
    with pytest.raises(CheckpointError, match="holds a whole network"):
        load(whole, arch="resnet18")
    whole.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(CheckpointError, match="cut short"):
        load(whole)


def test_exported_programs_load_with_a_free_or_fixed_batch(tmp_path: Path) -> None:
    """The batch dimension is what the program says; the example follows it."""
    free = load(exported(small(), tmp_path / "free.pt"))
    assert (free.kind, free.dynamic_batch, free.example[0].shape) == ("exported", True, (2, 3, 64, 64))
    torch.testing.assert_close(free.module(torch.cat([IMAGE, IMAGE])), small()(torch.cat([IMAGE, IMAGE])))
    fixed = load(exported(small(), tmp_path / "fixed.pt2", dynamic=False, image=IMAGE[:1]))
    assert (fixed.dynamic_batch, fixed.example[0].shape) == (False, (1, 3, 64, 64))
    assert any("batch 1 only" in note for note in fixed.notes)
    assert {k for k, _ in fixed.module.named_parameters()} == {k for k, _ in small().named_parameters()}


def test_exported_programs_that_do_not_fit(tmp_path: Path) -> None:
    """Other shapes, several inputs, NaN and damage are errors."""
    path = exported(small(), tmp_path / "net.pt2")
    with pytest.raises(UsageError, match=r"takes inputs of shape any,3,64,64, not 1,3,32,32"):
        load(path, input_shape=(1, 3, 32, 32))
    torch.export.save(torch.export.export(nn.Bilinear(2, 3, 4), (torch.ones(1, 2), torch.ones(1, 3))), path)
    with pytest.raises(CheckpointError, match="takes 2 inputs"):
        load(path)
    bad = small()
    bad.conv.bias.data[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"conv\.bias has 1 NaN"):
        load(exported(bad, path))
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/models/model.json", "{}")
    with pytest.raises(CheckpointError, match="not a readable exported program"):
        load(path)


PLAN = Plan({"features.0.weight": {0: (0, 2)}})


def test_saved_files_give_plan_weights_and_the_uncut_architecture(tmp_path: Path) -> None:
    """What is written comes back, the architecture is built uncut, and nothing in the file is pickled code."""
    path = tmp_path / "cut.pt"
    state = {"features.0.weight": torch.randn(2, 3, 3, 3)}
    steps = Preprocessing(mean=(0.5,), std=(0.2,), crop=32, source="x")
    write_saved(
        path,
        state=state,
        plan=PLAN,
        arch="squeezenet1_1",
        arch_options={"num_classes": 4},
        input_shape=(1, 3, 32, 32),
        preprocessing=steps,
        program=None,
    )
    network = load(path)
    assert (network.kind, network.arch, network.plan) == ("saved", "torchvision:squeezenet1_1", PLAN)
    assert network.arch_options == {"num_classes": 4}
    assert network.preprocessing == steps
    assert network.example[0].shape == (2, 3, 32, 32)
    assert network.cut_state is not None
    assert torch.equal(network.cut_state["features.0.weight"], state["features.0.weight"])
    assert network.module.get_parameter("features.0.weight").shape == (64, 3, 3, 3)
    assert not any(value.is_meta for value in network.module.state_dict().values())


def test_saved_files_can_carry_the_uncut_program(tmp_path: Path) -> None:
    """Networks without source code are rebuilt from the program that lies in the file."""
    program = io.BytesIO()
    torch.export.save(torch.export.export(small(), (IMAGE,), dynamic_shapes=({0: torch.export.Dim("batch")},)), program)
    path = tmp_path / "cut.pt"
    write_saved(path, state={}, plan=PLAN, arch=None, input_shape=(1, 3, 64, 64), program=program.getvalue())
    network = load(path)
    assert (network.kind, network.arch, network.dynamic_batch, network.plan) == ("saved", None, True, PLAN)
    torch.testing.assert_close(network.module(IMAGE), small()(IMAGE))
    with pytest.raises(ValueError, match="not both"):
        write_saved(path, state={}, plan=PLAN, arch=None, input_shape=(1, 3, 64, 64))


def test_saved_files_run_no_code_unasked(tmp_path: Path) -> None:
    """A file architecture recorded in a saved file is run only when named or trusted; the error says what to add."""
    source = tmp_path / "net.py"
    source.write_text("from torch import nn\n\ndef net(n=3):\n    return nn.Linear(n, 2)\n")
    arch = f"{source}:net"
    path = tmp_path / "cut.pt"
    write_saved(path, state={}, plan=PLAN, arch=arch, arch_options={"n": 5}, input_shape=(1, 5))
    with pytest.raises(CheckpointError, match=r"not run unless you say so[\s\S]*--arch .*net.py:net"):
        load(path)
    for network in (load(path, trust=True), load(path, arch=arch)):
        assert network.module.get_parameter("weight").shape == (2, 5)
        assert network.arch_options == {"n": 5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "compress-9"}, "has the format 'compress-9'"),
        ({"plan": None}, "lacks plan"),
        ({"arch": None}, "names no architecture and holds no program"),
        ({"preprocessing": {"depth": 1}}, "preprocessing cannot be read"),
        ({"state_dict": {"w": torch.tensor([float("nan")])}}, "w has 1 NaN"),
    ],
)
def test_damaged_saved_files(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Every part that is missing or wrong is named."""
    path = tmp_path / "cut.pt"
    write_saved(path, state={}, plan=PLAN, arch="alexnet", input_shape=(1, 3, 64, 64))
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_building_gives_real_tensors() -> None:
    """Networks built for replaying a plan hold zeros and computed buffers, nothing on the meta device."""
    module = build("swin_t", {"num_classes": 2})
    assert not any(value.is_meta for value in module.state_dict().values())
    index = module.get_buffer("features.1.0.attn.relative_position_index")
    assert int(index.max()) == 168
