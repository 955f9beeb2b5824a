"""What a sweep of 64 points costs beside 64 evaluations of whole networks.

A ResNet-18 (CIFAR form, full width, 3 x 28 x 28) is trained for a few steps on Fashion-MNIST, then swept as
`compress sweep NET --layer layer2.1.conv2 --importance activation --k 1:128:2` does, on one thread. In the same run,
spread over it, some of the sweep's networks are evaluated whole, in float32, on the same images and by the evaluation
that gives the other commands' accuracies. Theirs have to be the sweep's, and their mean time x 64 is what the sweep is
compared with. The time of these evaluations is not counted as the sweep's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

import resnet_cifar  # noqa: E402
from make_images import read_split  # noqa: E402

from compress.core.files import written_whole  # noqa: E402
from compress.core.progress import Advance  # noqa: E402
from compress.core.types import Accuracy  # noqa: E402
from compress.evaluation.data import Data, open_data  # noqa: E402
from compress.evaluation.metrics import evaluate  # noqa: E402
from compress.graph.analyse import analyse  # noqa: E402
from compress.measure.machine import this_machine  # noqa: E402
from compress.pipeline.exploring import ExploreOptions  # noqa: E402
from compress.pipeline.sweep import SweepOptions, run_sweep  # noqa: E402
from compress.report.assemble import versions  # noqa: E402
from compress.report.sweep import Sweep, arithmetic  # noqa: E402
from compress.surgery.outputs import Layer, layer_of, without_outputs  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
IMAGES = Path("/usr/share/datasets/fashion-mnist")
TEST = ROOT / "models" / "fashion-mnist" / "test.npz"
LAYER = "layer2.1.conv2"
COUNTS = tuple(range(1, 128, 2))
SHAPE = (1, 3, 28, 28)


def trained(steps: int, path: Path) -> None:
    """Write weights after some steps of Adam on random batches of 64 training images, in bfloat16, one thread."""
    torch.manual_seed(0)
    x, y = read_split(IMAGES, "train")
    images, labels = torch.from_numpy(x.copy()).permute(0, 3, 1, 2), torch.from_numpy(y)
    net = resnet_cifar.resnet18().train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(len(labels), (64,))
        batch = (images[chosen].float() / 255).repeat(1, 3, 1, 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(net(batch).float(), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            print(f"step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        torch.save(net.to(memory_format=torch.contiguous_format).state_dict(), temporary)


def clock() -> np.ndarray:
    """Wall seconds and CPU seconds of this process."""
    return np.array([time.perf_counter(), time.process_time()])


@dataclass
class Whole:
    """Evaluates a whole network now and then while the sweep runs; `spent` are wall and CPU seconds, a row each."""

    data: Data
    layer: Layer
    net: torch.nn.Module
    order: np.ndarray
    at: tuple[int, ...]
    reached: dict[int, Accuracy] = field(default_factory=dict)
    spent: list[np.ndarray] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Follow a stage of the sweep."""
        del total

        def advance(done: int, of: int) -> None:
            count = len(self.spent)
            if name == "sweep" and count < len(self.at) and done / of >= (count + 0.5) / len(self.at):
                self.evaluate(self.at[count])

        yield advance

    def evaluate(self, removed: int) -> None:
        """Make the network without so many outputs, and evaluate it on all images."""
        cut = without_outputs(self.net, self.layer, np.setdiff1d(np.arange(self.layer.size), self.order[:removed]))
        start = clock()
        self.reached[removed] = evaluate(cut, self.data)
        self.spent.append(clock() - start)
        print(f"{removed} removed, whole: {self.reached[removed].top1}, {self.spent[-1][0]:.1f} s", flush=True)


def options(weights: Path, images: int | None, counts: tuple[int, ...]) -> SweepOptions:
    """The sweep of E3."""
    explore = ExploreOptions(
        checkpoint=weights,
        arch=f"{ROOT / 'models' / 'resnet_cifar.py'}:resnet18",
        input_shape=SHAPE,
        data=str(TEST),
        images=images,
        threads=1,
    )
    return SweepOptions(explore=explore, layer=LAYER, counts=counts, importance=("activation",))


def measured(weights: Path, counts: tuple[int, ...], whole: int) -> tuple[Sweep, Whole, np.ndarray]:
    """Sweep, with as many evaluations of whole networks in between; and the wall and CPU seconds of the sweep alone."""
    net = resnet_cifar.resnet18()
    net.load_state_dict(torch.load(weights))
    net.eval()
    layer = layer_of(net, analyse(net, (torch.rand(SHAPE),)), LAYER)
    order = np.array(run_sweep(options(weights, 2, counts[:1])).curves[0].order)
    at = tuple(counts[i * (len(counts) - 1) // max(whole - 1, 1)] for i in range(whole))
    beside = Whole(open_data(str(TEST), preprocessing=None, channels=3, size=SHAPE[2:]), layer, net, order, at)
    start = clock()
    found = run_sweep(options(weights, None, counts), beside)
    return found, beside, clock() - start - np.sum(beside.spent, axis=0)


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    whole, sweep, (before, after) = found["whole"], found["sweep"], found["load"]
    rows = "\n".join(
        f"| {p['removed']} | {p['whole']:.2%} | {p['sweep']:.2%} |".replace("%", " %") for p in whole["points"]
    )
    return f"""# A sweep of {found["points"]} points beside as many evaluations

`{found["command"]}`: ResNet-18 (CIFAR form, full width, 3 x 28 x 28), trained for {found["steps"]} steps on
Fashion-MNIST; `{LAYER}`, K = 1, 3 ... 127; {found["images"]:,} test images; one thread; {found["machine"]["cpu"]},
torch {found["versions"]["torch"]}; load average {before:.1f} before, {after:.1f} after (above 1: beside other work).

| | wall | CPU |
|---|--:|--:|
| the sweep, with everything before it | {sweep["wall"]:.1f} s | {sweep["cpu"]:.1f} s |
| one whole evaluation, mean of {len(whole["points"])} made in between | {whole["wall"]:.2f} s | {whole["cpu"]:.2f} s |
| the sweep's share of {found["points"]} of these | **{found["share"]["wall"]:.3f}** | **{found["share"]["cpu"]:.3f}** |

The sweep itself compares with its own run of the original on the same images, {sweep["original"]:.2f} s: a share of
{sweep["wall"] / sweep["original"] / found["points"]:.3f}, in wall time.

Arithmetic: {found["arithmetic"]}.

Top-1 in float32, of whole networks and in the sweep:

| removed | whole | sweep |
|--:|--:|--:|
{rows}
"""


def main() -> None:
    """Train where there are no weights yet, measure, and write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=120, help="of training")
    parser.add_argument("--weights", type=Path, help="where the trained weights lie, or are written")
    parser.add_argument("--whole", type=int, default=5, help="evaluations of whole networks")
    args = parser.parse_args()
    torch.set_num_threads(1)
    weights = args.weights or ROOT / "build" / f"sweep_speed_{args.steps}.pt"
    if not weights.exists():
        trained(args.steps, weights)
    before = os.getloadavg()[0]
    sweep, beside, spent = measured(weights, COUNTS, args.whole)
    points = {p.removed: p.reached.top1 for p in sweep.curves[0].points}
    one = np.mean(beside.spent, axis=0)
    share = spent / (one * len(points))
    found = {
        "command": f"python benchmarks/sweep_speed.py --steps {args.steps}",
        "steps": args.steps,
        "points": len(points),
        "images": sweep.images,
        "sweep": {"wall": spent[0], "cpu": spent[1], "original": sweep.costing.full, "top1": points},
        "whole": {
            "wall": one[0],
            "cpu": one[1],
            "each": [{"wall": wall, "cpu": cpu} for wall, cpu in beside.spent],
            "points": [{"removed": k, "whole": r.top1, "sweep": points[k]} for k, r in beside.reached.items()],
        },
        "share": {"wall": share[0], "cpu": share[1]},
        "load": [before, os.getloadavg()[0]],
        "precision": asdict(sweep.precision),
        "arithmetic": arithmetic(sweep.precision),
        "versions": versions(),
        "machine": asdict(this_machine()),
    }
    for name, text in (("json", json.dumps(found, indent=2) + "\n"), ("md", table(found))):
        with written_whole(RESULTS / f"sweep_speed.{name}") as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(table(found))
    unequal = [k for k, reached in beside.reached.items() if reached.top1 != points[k]]
    if unequal:
        raise SystemExit(f"the sweep's accuracy is not that of the whole network at {unequal}")


if __name__ == "__main__":
    main()
