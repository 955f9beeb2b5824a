"""A network becomes a file that computes the same, or there is no file."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
from torch import Tensor, nn

from compress.core.errors import ExportError, UsageError
from compress.export import TARGETS, Target, export, load
from compress.export.target import Job, Loaded

SUFFIXES = (".onnx", ".ts", ".pt2")


class TwoInTwoOut(nn.Module):
    """Two inputs of different shape and dtype, a nested output of two tensors."""

    def __init__(self) -> None:
        """Build two branches."""
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.drop = nn.Dropout()
        self.table = nn.Embedding(7, 4)

    def forward(self, image: Tensor, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mix (N, 3, H, W) and (N, 5) int64 into (N, 4) and (N, 5, 4)."""
        seen = self.drop(self.conv(image)).mean((2, 3))
        known = self.table(index)
        return seen + known.mean(1), {"known": known * seen[:, None]}


class FixedBatch(nn.Module):
    """Works at one batch size only."""

    def forward(self, x: Tensor) -> Tensor:
        """Take (2, 3) and nothing else."""
        return x.reshape(2, 3) * 2.0


class Refuses(nn.Module):
    """Runs, but cannot be exported: the branch depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        """Double what is positive on the whole."""
        return x * 2 if x.sum() > 0 else x * 3


def small() -> nn.Module:
    """Return a convolution with a trained-looking norm, in training mode."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).train()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_real_networks_survive_every_format(name: str, suffix: str, tmp_path: Path) -> None:
    """ResNet-18 and MobileNetV3 compute the same as a file of each kind, at batch sizes 1, 2 and 5."""
    module = torchvision.models.get_model(name, num_classes=10).eval()
    done = export(module, (torch.zeros(1, 3, 64, 64),), tmp_path / f"net{suffix}")
    assert done.batch_sizes == (1, 2, 5)
    assert done.notes == ()
    assert 0 <= done.max_relative_error <= 1e-4
    assert done.bytes == (tmp_path / f"net{suffix}").stat().st_size
    assert [file.name for file in tmp_path.iterdir()] == [f"net{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_several_inputs_and_nested_outputs(suffix: str, tmp_path: Path) -> None:
    """Integer inputs stay valid indices and every output of a nest is compared."""
    module, path = TwoInTwoOut().eval(), tmp_path / f"net{suffix}"
    done = export(module, (torch.zeros(2, 3, 8, 8), torch.tensor([[0, 6, 1, 2, 3]] * 2)), path)
    assert (done.batch_sizes, done.notes) == ((1, 2, 5), ())
    inputs = (torch.randn(4, 3, 8, 8), torch.randint(0, 7, (4, 5)))
    first, second = load(path)(inputs)
    expected = module(*inputs)
    torch.testing.assert_close(first, expected[0].detach())
    torch.testing.assert_close(second, expected[1]["known"].detach())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_graph_modules_are_networks_too(suffix: str, tmp_path: Path) -> None:
    """A module that came out of torch.export, which refuses eval(), and one of torch.fx can be written."""
    module, example = small().eval(), (torch.randn(2, 3, 6, 6),)
    module(*example)
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
    for graph in (program.module(), torch.fx.symbolic_trace(module)):
        done = export(graph, example, tmp_path / f"net{suffix}")
        assert (done.batch_sizes, done.notes) == ((1, 2, 5), ())


def test_onnx_has_stable_names_a_free_batch_and_no_local_paths(tmp_path: Path) -> None:
    """The file is valid ONNX whose inputs and outputs can be addressed by name, and tells nothing about the machine."""
    path = tmp_path / "net.onnx"
    export(TwoInTwoOut(), (torch.zeros(2, 3, 8, 8), torch.ones(2, 5, dtype=torch.int64)), path)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [value.name for value in proto.graph.input] == ["input", "input_1"]
    assert [value.name for value in proto.graph.output] == ["output", "output_1"]
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert str(Path(__file__).parent).encode() not in path.read_bytes()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    fed = {"input": np.zeros((9, 3, 8, 8), np.float32), "input_1": np.zeros((9, 5), np.int64)}
    assert session.run(["output_1"], fed)[0].shape == (9, 5, 4)


def test_onnx_folds_batch_norm_away(tmp_path: Path) -> None:
    """No BatchNorm is left in a simplified file: it sits in the convolution's weights."""
    module, example = small(), (torch.randn(2, 3, 6, 6),)
    module(*example)
    export(module, example, tmp_path / "net.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    assert "Conv" in kinds
    assert "BatchNormalization" not in kinds


def test_opset_is_the_asked_one_or_an_error(tmp_path: Path) -> None:
    """A newer opset is honoured; one that the exporter cannot reach is refused, not replaced in silence."""
    module, example, path = nn.Linear(3, 2), (torch.randn(2, 3),), tmp_path / "net.onnx"
    export(module, example, path, opset=21)
    assert onnx.load(path).opset_import[0].version == 21
    path.unlink()
    with pytest.raises(ExportError, match="opset 99 was asked for"):
        export(module, example, path, opset=99)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="not ONNX"):
        export(module, example, tmp_path / "net.ts", opset=18)


def test_the_unsimplified_file_is_kept_where_onnxsim_errs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simplifier that fails, or changes the result, costs a note and nothing else."""
    module, example, path = nn.Linear(3, 2), (torch.randn(2, 3),), tmp_path / "net.onnx"

    def crash(_: object, **_options: object) -> None:
        raise RuntimeError("no luck\nand more")

    def wrong(proto: onnx.ModelProto, **_options: object) -> tuple[onnx.ModelProto, bool]:
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        weight = copy.graph.initializer[0]
        array = onnx.numpy_helper.to_array(weight)
        weight.CopyFrom(onnx.numpy_helper.from_array(array + 1, weight.name))
        return copy, True

    monkeypatch.setattr("onnxsim.simplify", crash)
    done = export(module, example, path)
    assert done.notes == ("not simplified: onnxsim failed (no luck)",)
    monkeypatch.setattr("onnxsim.simplify", wrong)
    done = export(module, example, path)
    assert done.notes == ("not simplified: what onnxsim made of it computes something else",)
    assert done.max_relative_error <= 1e-4


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_fixed_batch_is_said(suffix: str, tmp_path: Path) -> None:
    """A network for one batch size gives a file for it, with a note; asking for a static file gives no note."""
    example = (torch.randn(2, 3),)
    done = export(FixedBatch(), example, tmp_path / f"net{suffix}")
    assert done.batch_sizes == (2,)
    assert len(done.notes) == 1
    assert done.notes[0].startswith("fixed to batch size 2: the network does not run at batch size 1")
    done = export(FixedBatch(), example, tmp_path / f"net{suffix}", dynamic_batch=False)
    assert (done.batch_sizes, done.notes) == ((2,), ())


def test_a_batch_that_only_the_exporter_fixes_is_said(tmp_path: Path) -> None:
    """Where the network takes any batch but its trace does not, the note carries the exporter's reason."""

    class Counts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + len([None] * int(x.shape[0])) if x.shape[0] < 3 else x + x.shape[0]

    done = export(Counts(), (torch.randn(2, 3),), tmp_path / "net.pt2")
    assert done.batch_sizes == (2,)
    assert "cannot write" in done.notes[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_module_is_left_as_it_was(suffix: str, tmp_path: Path) -> None:
    """Modes, weights, gradients' flags, hooks and the random state are the same after an export as before."""
    module = small()
    module(torch.randn(2, 3, 6, 6))
    module[1].eval()
    module[0].weight.requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    attributes = [sorted(vars(part)) for part in module.modules()]
    rng = torch.get_rng_state()
    export(module, (torch.randn(2, 3, 6, 6, generator=torch.Generator()),), tmp_path / f"net{suffix}")
    assert [part.training for part in module] == [True, False, True, True, True]
    assert module.training
    assert [p.requires_grad for p in module.parameters()] == [False, True, True, True, True, True]
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert [sorted(vars(part)) for part in module.modules()] == attributes
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert torch.equal(rng, torch.get_rng_state())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_reaches_the_terminal(suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither Python's streams nor the process's own carry an exporter's chatter, and logging is on again after."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export(nn.Linear(3, 2), (torch.randn(2, 3),), tmp_path / f"net{suffix}")
    out, err = capfd.readouterr()
    assert (out, err, caught) == ("", "", [])
    assert logging.root.manager.disable == logging.NOTSET


def test_inputs_that_are_no_tensors_are_told(tmp_path: Path) -> None:
    """A detector's list of images cannot be a file's input; what can be exported instead is said."""

    class Detects(nn.Module):
        def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
            return images[0].mean()

    with pytest.raises(ExportError, match="takes a list as an input"):
        export(Detects(), ([torch.randn(3, 8, 8)],), tmp_path / "network.onnx")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_unknown_suffix_names_the_known(tmp_path: Path) -> None:
    """A suffix without a target is refused with the list of those that have one."""
    with pytest.raises(UsageError, match=r"'\.h5'(.|\n)*\.onnx") as caught:
        export(nn.Linear(3, 2), (torch.randn(2, 3),), tmp_path / "net.h5")
    assert all(suffix in str(caught.value) for suffix in SUFFIXES)
    with pytest.raises(UsageError, match="does not exist"):
        export(nn.Linear(3, 2), (torch.randn(2, 3),), tmp_path / "nowhere" / "net.ts")


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_failing_exporter_gives_the_cause(suffix: str, tmp_path: Path) -> None:
    """What an exporter says in pages arrives as one line, and nothing is left in the folder."""
    with pytest.raises(ExportError, match=r"cannot write .*net") as caught:
        export(Refuses(), (torch.randn(2, 3),), tmp_path / f"net{suffix}")
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_trace_that_forgets_a_branch_is_caught(tmp_path: Path) -> None:
    """TorchScript freezes a branch on the data; the comparison with other data sees it, and leaves no file."""

    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.abs().sum() > 100 else x * 3

    with pytest.raises(ExportError, match="other results"):
        export(Sorted(), (torch.full((2, 3), 1e3),), tmp_path / "net.ts", dynamic_batch=False)
    assert not list(tmp_path.iterdir())


def injected(monkeypatch: pytest.MonkeyPatch, answer: Loaded, *, fails: bool = False) -> None:
    """Let `.ts` be a target whose file answers `answer`, or whose writer fails after half of the file."""

    def write(job: Job) -> tuple[str, ...]:
        job.path.write_bytes(b"half")
        if fails:
            try:
                raise ValueError("the true cause\nsecond line")
            except ValueError as error:
                raise RuntimeError("pages of advice") from error
        return ()

    fake = Target(name="Fake", write=write, load=lambda _: answer)
    monkeypatch.setitem(TARGETS._table, ".ts", fake)


@pytest.mark.parametrize(
    ("factor", "fine"), [(1.0, True), (1 + 5e-5, True), (1 + 2e-4, False), (float("nan"), False), (0.0, False)]
)
def test_a_mismatch_leaves_no_file(factor: float, fine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that is off by more than 1e-4, or not a number, is an error, and an older file stays untouched."""
    path = tmp_path / "net.ts"
    path.write_bytes(b"older")
    injected(monkeypatch, lambda inputs: (inputs[0] * factor,))
    if fine:
        assert export(nn.Identity(), (torch.ones(2, 3),), path).bytes == 4
        return
    with pytest.raises(ExportError, match="other results"):
        export(nn.Identity(), (torch.ones(2, 3),), path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("net.ts", b"older")]


def test_wrong_shapes_and_missing_outputs_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that returns fewer outputs, or other shapes, does not pass."""
    for answer in ((), (torch.ones(7),)):
        injected(monkeypatch, lambda _, answer=answer: answer)
        with pytest.raises(ExportError, match="returns shapes"):
            export(nn.Identity(), (torch.ones(2, 3),), tmp_path / "net.ts")
        assert not list(tmp_path.iterdir())


def test_the_deepest_cause_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line of what set off a chain of exceptions is what the user reads."""
    injected(monkeypatch, lambda inputs: inputs, fails=True)
    with pytest.raises(ExportError, match=r"as Fake: ValueError: the true cause$"):
        export(nn.Identity(), (torch.ones(2, 3),), tmp_path / "net.ts")
    assert not list(tmp_path.iterdir())


def test_networks_that_do_not_run_are_named_so(tmp_path: Path) -> None:
    """A network that fails on its own example, or returns no tensor, is an error before anything is written."""

    class Silent(nn.Module):
        def forward(self, _: Tensor) -> None:
            return None

    with pytest.raises(ExportError, match="does not run at batch size 2: RuntimeError"):
        export(nn.Linear(4, 2), (torch.ones(2, 3),), tmp_path / "net.ts")
    with pytest.raises(ExportError, match="returns no tensor"):
        export(Silent(), (torch.ones(2, 3),), tmp_path / "net.ts")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_loading_what_is_no_file_of_ours(suffix: str, tmp_path: Path) -> None:
    """A missing or damaged file is one sentence."""
    path = tmp_path / f"net{suffix}"
    with pytest.raises(UsageError, match="no file"):
        load(path)
    path.write_bytes(b"damaged")
    with pytest.raises(ExportError, match="cannot load"):
        load(path)
