"""Networks that return dicts and lists, take two inputs, sample grids or repeat an output become ONNX as well."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.export import export, load


class Segments(nn.Module):
    """A dict of two maps in the size of the image, as segmentation networks return it."""

    def __init__(self) -> None:
        """Build a trunk and two heads."""
        super().__init__()
        self.trunk = nn.Conv2d(3, 8, 3, stride=2)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.main, self.side = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Take (N, 3, H, W) to two maps (N, 4, H, W)."""
        size, seen = x.shape[-2:], self.trunk(x).relu()
        main = self.main(seen * self.gate(seen))
        maps = (("out", main), ("aux", self.side(seen)))
        return OrderedDict(
            (name, F.interpolate(y, size=size, mode="bilinear", align_corners=False)) for name, y in maps
        )


class Pyramid(nn.Module):
    """A dict of maps under keys that are numbers, as the backbones of detectors return it."""

    def __init__(self) -> None:
        """Build two levels."""
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.input = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Take (N, 3, H, W) to three maps of 6 channels, each half as large as the one before."""
        large = self.first(x).relu()
        small = self.input(self.second(large))
        upper = large + F.interpolate(small, size=large.shape[-2:], mode="nearest")
        return {"0": upper, "1": small, "pool": F.max_pool2d(small, 1, 2, 0), "input": small.mean((2, 3))}


class Flow(nn.Module):
    """Two images, a list of flows refined step by step, as optical flow networks return it."""

    def __init__(self) -> None:
        """Build an encoder and the step."""
        super().__init__()
        self.encode, self.step = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, one: Tensor, two: Tensor) -> list[Tensor]:
        """Take two batches of images (N, 3, H, W) to two flows (N, 2, H, W)."""
        batch, _, height, width = one.shape
        first, second = torch.chunk(self.encode(torch.cat([one, two])), 2, dim=0)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        start = torch.stack([columns, rows])[None].float().repeat(batch, 1, 1, 1)
        places, flows = start, []
        for _ in range(2):
            x, y = places.permute(0, 2, 3, 1).split([1, 1], dim=-1)
            grid = torch.cat([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1)
            found = F.grid_sample(second, grid, align_corners=True, mode="bilinear")
            places = places + self.step(torch.cat([first * found, places - start], dim=1)).tanh()
            flows.append(places - start)
        return flows


class Twice(nn.Module):
    """One tensor under two names, and the input handed on."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Take (N, 3) to three tensors (N, 3)."""
        y = x * 2
        return {"a": y, "b": y, "c": x}


FORMS = [
    (Segments, ["out", "aux"]),
    # The input has that name already, so the last one keeps its number.
    (Pyramid, ["output_0", "output_1", "pool", "output_3"]),
    (Twice, ["a", "b", "c"]),
    (Flow, ["output", "output_1"]),
]


@pytest.mark.parametrize(("kind", "names"), FORMS)
def test_every_form_of_output_comes_back_under_its_name(
    kind: type[nn.Module], names: list[str], tmp_path: Path
) -> None:
    """Each tensor of a dict or list comes back in its place, named by its key, at every batch size or with a note."""
    torch.manual_seed(0)
    module, path = kind().eval(), tmp_path / "net.onnx"
    shape = (3,) if kind is Twice else (3, 12, 16)
    inputs = tuple(torch.randn(3, *shape) for _ in range(2 if kind is Flow else 1))
    done = export(module, inputs, path)
    if kind is Flow:  # chunks of a concatenated batch: the tracer fixes its length, and the user reads so
        assert done.batch_sizes == (3,)
        assert done.notes[0].startswith("fixed to batch size 3: ")
    else:
        assert (done.batch_sizes, done.notes) == ((1, 2, 5), ())
    expected = module(*inputs)
    answer = list(expected.values()) if isinstance(expected, dict) else expected
    assert [value.name for value in onnx.load(path).graph.output] == names
    given = load(path)(inputs)
    assert len(given) == len(answer)
    for mine, theirs in zip(answer, given, strict=True):
        torch.testing.assert_close(theirs, mine.detach(), rtol=1e-4, atol=1e-5)
