"""A file that only rounds otherwise is told from a wrong one, and the exporter's own mistakes are worked around."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from compress.core.errors import ExportError
from compress.export import TARGETS, Target, export
from compress.export.target import Job


class Amplifies(nn.Module):
    """Turns the last digits of float32 into the first of its result."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(300, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Take (N, 300)."""
        return torch.sin(self.fc(x) * 20000)


def test_rounding_is_no_mistake(tmp_path: Path) -> None:
    """A network without four correct digits in float32 is written, and the note tells what float64 showed."""
    done = export(Amplifies(), (torch.randn(2, 300),), tmp_path / "net.onnx")
    assert done.max_relative_error > 1e-4
    assert any("amplifies rounding" in note and "computed in float64 they agree" in note for note in done.notes)


def test_a_wrong_file_of_such_a_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight off by a thousandth is found in float64, where rounding is no excuse."""
    right = TARGETS[".onnx"]

    def wrong(job: Job) -> tuple[str, ...]:
        notes = right.write(job)
        model = onnx.load(job.path)
        tensor = next(t for t in model.graph.initializer if len(t.dims) == 2)
        changed = numpy_helper.to_array(tensor).copy()
        changed[0, 0] += 1e-3
        tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
        onnx.save(model, job.path)
        return notes

    bad = Target(name="ONNX", write=wrong, load=right.load, load_double=right.load_double)
    monkeypatch.setitem(TARGETS._table, ".onnx", bad)
    with pytest.raises(ExportError, match="other results"):
        export(Amplifies(), (torch.randn(2, 300),), tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


class Clamped(nn.Module):
    """Clamps one tensor twice, by bounds that are buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 5), nn.Linear(4, 5)
        for name, bound in (("low", -0.5), ("high", 0.5), ("lower", -2.0), ("higher", 0.7)):
            self.register_buffer(name, torch.tensor(bound))

    def forward(self, x: Tensor) -> Tensor:
        """Take (N, 4)."""
        x = x * 2
        inner, outer = torch.clamp(x, self.low, self.high), torch.clamp(x, self.lower, self.higher)
        out: Tensor = self.one(inner) + self.two(outer)
        return out


def test_a_tensor_clamped_twice(tmp_path: Path) -> None:
    """The exporter's optimiser would give both clamps the bounds of one; the file has all four."""
    done = export(Clamped(), (torch.randn(2, 4),), tmp_path / "net.onnx")
    assert done.max_relative_error < 1e-5


class Normalised(nn.Module):
    """Divides by a norm that may be zero, kept from zero by a number, or by one that a buffer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("little", torch.tensor(1e-9))

    def forward(self, x: Tensor) -> Tensor:
        """Take (N, 4)."""
        square = x.square().sum(1, keepdim=True)
        return x / (square.sqrt() + 1e-8) + x * (square / (square + self.little))


def test_a_number_that_keeps_a_quotient_finite(tmp_path: Path) -> None:
    """The exporter's optimiser would take it for zero; the file answers zeros with zeros."""
    done = export(Normalised(), torch.randn(2, 4), tmp_path / "net.onnx")
    assert done.max_relative_error < 1e-5
    (answer,) = TARGETS[".onnx"].load(tmp_path / "net.onnx")((torch.zeros(2, 4),))
    assert torch.equal(torch.as_tensor(answer), torch.zeros(2, 4))
