"""`compress sweep`: every point is a network that was really cut, and what they share is computed once."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from compress.cli.exploring import counts
from compress.core.errors import UsageError
from compress.core.progress import Silent
from compress.evaluation.metrics import evaluate
from compress.evaluation.variants import Variant, measure
from compress.graph.analyse import analyse
from compress.graph.prefix import Resume, capture, first_reading, recorded, resume, split
from compress.surgery.outputs import error_without, layer_of, without_outputs
from tests.zoo.explored import files_in, images, network, run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with net.py, weights net.pt and 300 images."""
    monkeypatch.chdir(tmp_path)
    return files_in(tmp_path)


class Counted(TorchDispatchMode):
    """Counts what is computed, whoever asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and compute."""
        self.seen[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


def by_hand(folder: Path, keep: dict[str, list[int]]) -> tuple[float, float]:
    """Top-1 and loss with the outputs of batch norms (by name) multiplied by zero, evaluated in full."""
    net = network()
    for name, gone in keep.items():
        mask = torch.ones(12)
        mask[gone] = 0
        net.get_submodule(name).register_forward_hook(lambda _m, _i, y, mask=mask: y * mask[:, None, None])
    data = images()
    reached = evaluate(net, data)
    return reached.top1, reached.loss


def test_outputs_of_one_layer_leave_and_the_stream_stays(folder: Path) -> None:
    """A point equals the network whose branch was masked by hand; the weight is D x 3 x 3 x (P-K)."""
    asked = ("--layer", "two.conv2", "--k", "0:12:4", "-i", "activation,l1", "--data", "images.npz")
    result = run("sweep", *asked, "--json", "sweep.json", "--plot", "sweep.svg")
    assert result.exit_code == 0, result.output
    found = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    assert (found["command"], found["format"], found["mode"]) == ("sweep", "compress-sweep-1", "outputs")
    assert [c["importance"] for c in found["curves"]] == ["activation", "l1"]
    losses = set()
    for curve in found["curves"]:
        for point in curve["points"]:
            removed = curve["order"][: point["removed"]]
            top1, loss = by_hand(folder, {"two.bn2": removed})
            assert point["shape"] == [12 - point["removed"], 12, 3, 3]
            assert point["reached"]["top1"] == top1
            assert point["reached"]["loss"] == pytest.approx(loss, rel=1e-5)
            losses.add(round(loss, 6))
    assert len(losses) == 5  # both begin with the whole network
    assert found["original"] == found["curves"][0]["points"][0]["reached"]
    assert (folder / "sweep.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_a_layer_with_channels_of_its_own_is_cut_with_what_reads_it(folder: Path) -> None:
    """Without a stream the consumers lose their columns, and the point is what `compress slim` would evaluate."""
    result = run("sweep", "--layer", "conv", "--k", "3,6", "--data", "images.npz", "--json", "sweep.json")
    assert result.exit_code == 0, result.output
    found = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    assert (found["mode"], found["channels"]) == ("group", 10)
    (curve,) = found["curves"]
    for point in curve["points"]:
        net = network()
        gone = curve["order"][: point["removed"]]
        net.conv.weight.data[gone], net.conv.bias.data[gone] = 0, 0
        reached = evaluate(net, images())
        assert point["reached"]["top1"] == reached.top1
        assert point["reached"]["loss"] == pytest.approx(reached.loss, rel=1e-5)
        assert point["shape"] == [10 - point["removed"], 12, 3, 3]


def test_a_group_leaves_the_whole_stream(folder: Path) -> None:
    """--group takes channels from every layer that makes the stream: masked by hand at the stem and both blocks."""
    result = run("sweep", "--layer", "two.conv2", "--group", "--k", "5", "--data", "images.npz", "--json", "s.json")
    assert result.exit_code == 0, result.output
    found = json.loads((folder / "s.json").read_text(encoding="utf-8"))
    (curve,) = found["curves"]
    gone = curve["order"][:5]
    top1, loss = by_hand(folder, {"stem.1": gone, "one.bn2": gone, "two.bn2": gone})
    assert curve["points"][0]["reached"]["top1"] == top1
    assert curve["points"][0]["reached"]["loss"] == pytest.approx(loss, rel=1e-5)


def test_activation_ranks_by_what_the_layer_adds(folder: Path) -> None:
    """The order is that of the mean magnitude behind the batch norm, over the images."""
    result = run("sweep", "--layer", "two.conv2", "--k", "1", "--data", "images.npz", "--json", "s.json")
    assert result.exit_code == 0, result.output
    net, added = network(), []
    net.two.bn2.register_forward_hook(lambda _m, _i, y: added.append(y.abs().mean((0, 2, 3))))
    with np.load("images.npz") as archive:
        net(torch.from_numpy(archive["x"]).permute(0, 3, 1, 2).float() / 255)
    found = json.loads((folder / "s.json").read_text(encoding="utf-8"))
    assert found["curves"][0]["order"] == added[0].argsort().tolist()


def test_without_labels_agreement_is_measured(folder: Path) -> None:
    """Images without labels give no accuracy, but how often the answer is the original's."""
    result = run("sweep", "--layer", "conv", "--k", "0,9", "--data", "bare.npz", "--json", "s.json")
    assert result.exit_code == 0, result.output
    assert "same answer" in result.stdout
    found = json.loads((folder / "s.json").read_text(encoding="utf-8"))
    none, most = (p["reached"] for p in found["curves"][0]["points"])
    assert (none["agreement"], none["top1"], none["loss"]) == (1.0, None, None)
    assert most["agreement"] < 1


def test_the_prefix_is_computed_once(folder: Path) -> None:
    """With 6 points on the last convolution, the 5 before it run once a batch, not 7 times."""
    del folder
    net = network()
    data = images()
    example = (torch.rand(2, 1, 8, 8),)
    layer = layer_of(net, analyse(net, example), "conv")
    steps = recorded(net, example)
    variants = [
        Variant(without_outputs(net, layer, np.arange(k, 10)), first_reading(steps, ["conv.weight"])) for k in range(6)
    ]
    with Counted() as counted:
        found = measure(net, variants, data, Silent(), run=steps, limit=256)
    batches = 2
    assert counted.seen["aten.convolution"] == batches * (6 + 6 * 1)
    assert counted.seen["aten.relu_"] == batches * (1 + 4)
    assert found.costing.skipped > found.costing.computed


def test_a_resumed_original_gives_its_own_output() -> None:
    """From every operator on, the held values lead to the same bits, writing in place or not."""
    net, x = network(), torch.rand(3, 1, 8, 8)
    steps = recorded(net, (torch.rand(2, 1, 8, 8),))
    splits = {at: split(steps, at) for at in range(len(steps.ops) + 1)}
    want, held = capture(net, (x,), steps, list(splits.values()))
    with torch.no_grad():
        assert torch.equal(want, net(x))
    reached = {s.at for s in splits.values()}
    assert len(reached) > len(steps.ops) - 4
    for at in sorted(reached):
        mode = Resume(held[at])
        assert torch.equal(resume(net, (x,), mode), want)
        assert mode.skipped == at
        assert torch.equal(resume(net, (x,), Resume(held[at])), want)  # what was held is not used up


class Concatenated(nn.Module):
    """Writes into a view of what it keeps, and reads it afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) -> (N, 2)."""
        y = self.a(x)
        view = y[:, :3]
        z = self.b(F.relu(y))
        view.mul_(2)
        return self.c(z + y)


def test_memory_that_is_written_into_later_is_told_apart() -> None:
    """Where kept values share memory that is written into, the run begins earlier, and the output is the same."""
    torch.manual_seed(0)
    net, x = Concatenated(), torch.randn(5, 4)
    steps = recorded(net, (torch.randn(2, 4),))
    for at in range(len(steps.ops) + 1):
        place = split(steps, at)
        want, held = capture(net, (x,), steps, [place])
        assert place.at <= at
        assert torch.equal(resume(net, (x,), Resume(held[place.at])), want)


def test_the_cut_is_exact_in_float64(folder: Path) -> None:
    """The network that lost outputs is the original with these multiplied by zero."""
    del folder
    net, example = network(), (torch.rand(2, 1, 8, 8),)
    layer = layer_of(net, analyse(net, example), "one.conv2")
    assert (layer.norm, layer.size) == ("one.bn2", 12)
    kept = np.array([1, 5, 6])
    cut = without_outputs(net, layer, kept)
    assert error_without(net, cut, layer, kept, example) < 1e-12
    assert error_without(net, cut, layer, np.array([1, 5]), example) > 1e-3
    assert cut.stem[0].weight is net.stem[0].weight
    assert sum(p.numel() for p in cut.parameters()) == sum(p.numel() for p in net.parameters()) - 9 * (12 * 9 + 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--layer conv9 --k 1 --data images.npz", "conv9"),
        ("--layer conv --k 10 --data images.npz", "one has to stay"),
        ("--layer conv --k 1:x --data images.npz", "--k"),
        ("--layer head --k 1 --group --data images.npz", "must stay"),
        ("--layer conv --k 1 -i l3 --data images.npz", "did you mean"),
        ("--layer two.conv2 --k 1 -i wanda --data images.npz", "--group"),
        ("--layer conv --k 1 --data images.npz --plot x.bmp", ".bmp"),
        ("--layer conv --k 1 --data none.npz", "none.npz"),
    ],
)
def test_bad_input_is_one_sentence(arguments: str, words: str, folder: Path) -> None:
    """What cannot be swept is said in one message, and nothing is written."""
    before = set(folder.iterdir())
    result = run("sweep", *arguments.split(), "--json", "s.json")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert {p for p in folder.iterdir() if p.name != "__pycache__"} == before


def test_counts_are_read_as_ranges_and_lists() -> None:
    """--k 1:128:2 is Python's range, --k 8,1,2 a list in rising order."""
    assert counts("1:128:2") == tuple(range(1, 128, 2))
    assert counts("8,1,2") == (1, 2, 8)
    for wrong in ("", "5:5", "1:2:0", "-3", "1,2:4", "1:2:3:4"):
        with pytest.raises(UsageError, match="--k"):
            counts(wrong)


class Stopping(Silent):
    """Interrupts the sweep after some steps."""

    def stage(self, name: str, total: int | None = None) -> Any:
        """Press Ctrl-C in the second batch."""

        @contextmanager
        def entered() -> Any:
            def advance(done: int, _total: int) -> None:
                if name == "evaluate" and done == 2 * 300:
                    raise KeyboardInterrupt

            yield advance

        del total
        return entered()


def test_an_interruption_keeps_whole_batches(folder: Path) -> None:
    """After Ctrl-C in the third batch every figure is of the same 256 images, and says so."""
    del folder
    net = network()
    data = images()
    steps = recorded(net, (torch.rand(2, 1, 8, 8),))
    found = measure(net, [Variant(net, len(steps.ops))], data, Stopping(), run=steps)
    assert (found.complete, found.images, found.asked) == (False, 256, 300)
    assert {found.original.images, found.variants[0].images} == {256}
