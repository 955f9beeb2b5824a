"""What `compress inspect` tells: what every group carries, why the rest stays, the files, the picture."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from compress.cli import app
from compress.core.errors import PlanError, UsageError
from compress.graph.analyse import Analysis, analyse
from compress.graph.carried import macs_carried
from compress.graph.costs import macs, norm_scales
from compress.graph.rewrite import Sizes
from compress.importance import Weights, score
from compress.report.coupling import dot
from compress.report.groups import told
from compress.report.inspection import Inspection, inspection
from compress.report.inspectjson import inspection_json
from compress.report.picture import draw, matrix


class Residual(nn.Module):
    """A stem that a block adds to, a classifier, a parameter that nothing reads, an operator without a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.block = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1))
        self.odd = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(8, 5)
        self.spare = nn.Parameter(torch.ones(7))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, 3, 4, 4) -> (N, 5), (N, 6, 4, 4)."""
        x = self.stem(x)
        x = x + self.block(x)
        return self.head(x.mean((2, 3))), torch.linalg.matrix_exp(self.odd(x))


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    """The residual network, analysed with a batch of 2."""
    torch.manual_seed(0)
    return analyse(Residual().eval(), (torch.randn(2, 3, 4, 4),))


@pytest.fixture(scope="module")
def facts(analysis: Analysis) -> Inspection:
    """Everything about the residual network, scored."""
    return inspection("residual.pt", analysis, importance="l2")


def _shown(facts: Inspection, *, tree: bool = False, width: int = 140) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(told(facts, tree=tree))
    return stream.getvalue()


def test_a_group_carries_what_was_worked_out_by_hand(facts: Inspection) -> None:
    """MACs for one input of 16 pixels, and parameters, of all layers that make or read the channels."""
    stem, inner, out = 16 * 8 * 27, 16 * 16 * 72, 16 * 8 * 16
    odd, head = 16 * 6 * 8, 8 * 5
    rows = {row.group.name: row for row in facts.groups}
    assert facts.macs == stem + inner + out + odd + head
    assert rows["stem"].macs == facts.macs
    assert rows["block.0"].macs == inner + out
    assert rows["head"].macs == head
    assert rows["odd"].macs == odd
    assert rows["block.0"].parameters == 16 * 72 + 16 + 2 * 16 + 8 * 16
    assert rows["stem"].parameters == 8 * 27 + 16 * 72 + (8 * 16 + 8) + 6 * 8 + 5 * 8
    assert (rows["stem"].made, rows["stem"].read) == (("stem", "block.3"), ("block.0", "odd", "head"))
    assert (rows["stem"].outputs, rows["block.0"].outputs) == (16, 16)
    assert facts.parameters == sum(p.numel() for p in Residual().parameters())


def test_carried_macs_are_those_of_the_cut_network(analysis: Analysis) -> None:
    """Counting only the operators that a group touches gives what counting all of them gives."""
    carried = macs_carried(analysis, analysis.groups)
    for group, count in zip(analysis.groups, carried, strict=True):
        gone = np.zeros(analysis.channels, dtype=bool)
        gone[group.labels] = True
        sizes = Sizes(analysis.traces[0].shapes, analysis.layouts[0], gone[analysis.component])
        assert count == macs(analysis.traces[0]) - macs(analysis.traces[0], sizes)


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_grouped_convolutions_and_heads_are_counted(groups: int) -> None:
    """All that touches a group vanishes with it, whatever the convolution's number of groups."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=groups), nn.Conv2d(8, 4, 1)).eval()
    found = analyse(net, (torch.randn(2, 3, 4, 4),))
    rows = dict(zip((g.name for g in found.groups), macs_carried(found, found.groups), strict=True))
    first, middle, last = 16 * 8 * 3, 16 * 8 * 8 * 9 // groups, 16 * 4 * 8
    assert rows["0"] == first + middle + (0 if groups == 1 else last)


def test_totals_and_reasons(facts: Inspection) -> None:
    """Output channels free to leave, and each reason with what it costs and where it is met first."""
    assert facts.channels == 24
    assert facts.outputs == (32, 43)
    causes = {cause.why: cause for cause in facts.causes}
    assert causes["output of the network"].outputs == 5
    lacking = causes["aten.linalg_matrix_exp has no rule"]
    assert (lacking.groups, lacking.channels, lacking.outputs) == (1, 6, 6)
    assert re.fullmatch(r"the network itself \(test_inspect\.py:\d+\)", lacking.first)
    assert list(facts.unknown) == ["aten.linalg_matrix_exp"]
    assert dict(facts.unread) == {"spare": 7}


def test_kernel_extents_are_no_groups(analysis: Analysis) -> None:
    """Height and width of kernels are in no group."""
    assert all(member.dim < 2 for group in analysis.groups for member in group.members)


@pytest.mark.parametrize(
    "words",
    [
        "24 channels may leave, in 2 of 4 groups: 32 of the layers' 43 output channels, 74.42 %",
        "with block.3",
        "read by block.0, odd, head",
        "stays: output of the network",
        "aten.linalg_matrix_exp has no rule: what it touches stays",
        "no forward pass reads 7 parameters, which stay: spare",
        "l2: min, median, max",
        "100.0 %",
        "not shown: 3 channels",
    ],
)
def test_the_table_says_it(facts: Inspection, words: str) -> None:
    """What a group is, carries and why it stays can be read in the terminal."""
    assert words in _shown(facts)


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_width_of_terminal_works(facts: Inspection, width: int, *, tree: bool) -> None:
    """Narrow terminals wrap; no line is longer than the terminal."""
    assert max(map(len, _shown(facts, tree=tree, width=width).splitlines())) <= width


def test_the_tree_shows_every_layer_in_its_module(facts: Inspection) -> None:
    """A line a layer: its shape, the group its output belongs to, and whether that may leave or why not."""
    lines = _shown(facts, tree=True).splitlines()
    wanted = [
        "├── stem 8 x 3 x 3 x 3 -> stem, 8 channels, 100.0 % of the MACs: may leave",
        "├── block",
        "│   ├── 0 16 x 8 x 3 x 3 -> block.0, 16 channels, 82.8 % of the MACs: may leave",
        "│   ├── 1 16 -> block.0, 16 channels, 82.8 % of the MACs: may leave",
        "│   └── 3 8 x 16 x 1 x 1 -> stem, 8 channels, 100.0 % of the MACs: may leave",
    ]
    assert [line.rstrip() for line in lines[1:6]] == wanted
    assert any("head 5 x 8 -> head, 5 channels, 0.2 % of the MACs: stays, output of the network" in at for at in lines)


def test_spreads_are_the_scores(analysis: Analysis, facts: Inspection) -> None:
    """Smallest, median and largest score of every group that may leave, and of no other."""
    scores, _ = score(analysis.prunable, Weights(analysis.tensors, norm_scales(analysis.traces)), "l2")
    for row in facts.groups:
        assert (row.spread is not None) == row.group.prunable
        if row.spread is not None:
            values = scores[row.group.name]
            assert (row.spread.low, row.spread.high) == (values.min(), values.max())
            assert row.spread.middle == np.median(values)


def test_what_a_criterion_cannot_judge_is_named(analysis: Analysis) -> None:
    """An unknown criterion, one that judges nothing, and one that judges only some groups."""
    with pytest.raises(UsageError, match="did you mean 'l2'"):
        inspection("net", analysis, importance="l3")
    plain = analyse(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), (torch.randn(2, 4),))
    with pytest.raises(PlanError, match="no BatchNorm"):
        inspection("net", plain, importance="bn")
    assert "importance 'bn' cannot judge 1 group: stem" in _shown(inspection("net", analysis, importance="bn"))


def test_json_holds_all_of_it(facts: Inspection) -> None:
    """Every figure of the table, every layer, every reason in its parts."""
    data = json.loads(inspection_json(facts))
    assert (data["format"], data["network"], data["macs"]) == ("compress-inspect-1", "residual.pt", facts.macs)
    assert (data["prunable"], data["channels"], data["prunable_outputs"], data["outputs"]) == (24, 35, 32, 43)
    groups = {group["name"]: group for group in data["groups"]}
    (reason,) = groups["head"]["pinned"]
    assert (reason["why"], reason["operator"], reason["where"][:4]) == ("output of the network", "aten.addmm", "head")
    assert groups["odd"]["pinned"][0]["operator"] == "aten.linalg_matrix_exp"
    assert groups["stem"]["share"] == 1
    assert groups["stem"]["score"]["low"] <= groups["stem"]["score"]["middle"] <= groups["stem"]["score"]["high"]
    assert data["unread_parameters"] == {"spare": 7}
    layers = {layer["name"]: layer for layer in data["layers"]}
    assert layers["block.3"]["makes"] == [{"group": "stem", "indices": 8}]
    assert layers["block.3"]["reads"] == [{"group": "block.0", "indices": 16}]
    assert [cause["why"] for cause in data["pinned_because"]] == [cause.why for cause in facts.causes]


def test_dot_names_every_layer_and_group_once(facts: Inspection) -> None:
    """Every edge joins nodes that are there, and no name breaks the text."""
    text = dot(facts)
    nodes = re.findall(r"^  ([gl]\d+) \[", text, re.MULTILINE)
    edges = re.findall(r"^  ([gl]\d+) -> ([gl]\d+)", text, re.MULTILINE)
    assert len(nodes) == len(set(nodes)) == len(facts.groups) + len(facts.layers)
    assert {node for edge in edges for node in edge} <= set(nodes)
    assert len(edges) == sum(len(layer.makes) + len(layer.reads) for layer in facts.layers)
    odd = analyse(nn.ModuleDict({'a"b': nn.Linear(3, 4)})['a"b'], (torch.randn(2, 3),))
    assert r'label="a\"b\\"' in dot(inspection('a"b\\', odd))


def test_the_picture_marks_who_makes_and_who_reads(facts: Inspection) -> None:
    """Rows are kernels in network order, columns groups; the norm is left out, the residual stream is one column."""
    drawn = matrix(facts)
    assert [layer.name for layer in drawn.rows] == ["stem", "block.0", "block.3", "head", "odd"]
    assert [row.group.name for row in drawn.columns] == ["stem", "block.0", "head", "odd"]
    assert set(drawn.makes) == {(0, 0), (1, 1), (2, 0), (3, 2), (4, 3)}
    assert set(drawn.reads) == {(1, 0), (2, 1), (3, 0), (4, 0)}


def test_the_picture_is_a_self_contained_svg(facts: Inspection, tmp_path: Path) -> None:
    """Well-formed, the same each time, with nothing loaded from elsewhere; a network without groups draws too."""
    draw(facts, tmp_path / "one.svg")
    draw(facts, tmp_path / "two.svg")
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "two.svg").read_text(encoding="utf-8")
    assert ET.fromstring(text).tag.endswith("svg")
    assert not re.findall(r'href="(?!#)', text)
    draw(inspection(r"no $\thing$", analyse(nn.ReLU(), (torch.randn(2, 3),))), tmp_path / "nothing.svg")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a traced network."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)).eval()
    torch.jit.trace(net, torch.randn(2, 3, 4, 4)).save(str(tmp_path / "net.ts"))
    return tmp_path


def _inspect(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["inspect", "net.ts", "--input-shape", "1,3,4,4", *arguments])


def test_the_command_writes_every_file(folder: Path) -> None:
    """One run gives the tree, the scores and three files, and nothing else."""
    files = ("--json", "a.json", "--dot", "a.dot", "--svg", "a.svg")
    result = _inspect("--tree", "--importance", "bn", *files)
    assert result.exit_code == 0, result.output
    assert "8 channels may leave" in result.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["a.dot", "a.json", "a.svg", "net.ts"]
    assert json.loads((folder / "a.json").read_text(encoding="utf-8"))["importance"] == "bn"
    assert _inspect("--quiet").output == ""


@pytest.mark.parametrize("source", ["images", "bare.npz"])
def test_criteria_that_need_inputs_see_unlabelled_images(folder: Path, source: str) -> None:
    """A bare folder and an .npz with x alone do for --calibration; without --importance it is reconstruction."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 3), dtype=np.uint8)
    np.savez("bare.npz", x=pixels)
    (folder / "images").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "images" / f"{number:02}.png")
    result = _inspect("--quiet", "--calibration", source, "--json", "a.json")
    assert result.exit_code == 0, result.output
    found = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    assert found["importance"] == "reconstruction"
    refused = _inspect("--calibration", source, "--importance", "taylor")
    assert (refused.exit_code, "needs labels" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--importance wanda", "--calibration"),
        ("--importance l3 --json a.json", "did you mean"),
        ("--svg none/a.svg", "does not exist"),
        ("--dot a --svg a", "named twice"),
        ("--dot net.ts", "would overwrite an input"),
    ],
)
def test_mistakes_leave_no_file(folder: Path, arguments: str, words: str) -> None:
    """One message, exit code 2, nothing written."""
    result = _inspect(*arguments.split())
    assert result.exit_code == 2
    assert words in result.stderr
    assert [path.name for path in folder.iterdir()] == ["net.ts"]


def test_the_line_is_the_networks_own() -> None:
    """A reason names the line of a model library's code; a network of PyTorch's layers alone has no line to name."""
    from torchvision.models import squeezenet1_1

    pinned = [
        str(g.pinned[0]) for g in analyse(squeezenet1_1().eval(), (torch.randn(2, 3, 64, 64),)).groups if g.pinned
    ]
    assert re.search(r"output of the network, aten\.\w+ at .*\(squeezenet\.py:\d+\)", pinned[-1])
    plain = analyse(nn.Sequential(nn.Linear(3, 4)), (torch.randn(2, 3),)).groups[0].pinned[0]
    assert str(plain) == "output of the network, aten.addmm at 0"
