"""E2: L1 filter pruning to widths that are named (Li et al., ICLR 2017, arXiv:1608.08710).

python benchmarks/experiments/e2.py [--data fashion-mnist:DIR] [--table]

A ConvNet 32-64-64 is cut to 8-16-32 (the Linear behind the flatten loses the matching columns: 3136 -> 1568), an MLP
200-200 to 50-100 by the same option, a ResNet-14 (32-64-128) first inside its blocks only, as in the paper, then in its
residual streams as well. Each is then fine-tuned: ConvNet and MLP, which are trained here, on the same 60,000 images;
the ResNet-14 is the checkpoint in models/, and is won back from the 1,000 images beside it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import common
from common import RESULTS, Experiment, page, picture, points, table

INNER = "layer1.*.conv1=16,layer2.*.conv1=32,layer3.*.conv1=64"
FEW = "models/fashion-mnist/calibration.npz"
NAMES = ("convnet", "mlp", "resnet14-inner", "resnet14-streams")
STREAMS = "conv1=16,layer2.0.conv2=32,layer3.0.conv2=64"


@dataclass(frozen=True, slots=True)
class Case:
    """A network, how long it is trained (0: it comes trained), the widths that stay, and the epochs of fine-tuning.

    `few` images take the place of the 60,000 where those would take too long: what leaves is absorbed from them without
    their labels, then the network is fine-tuned on them.
    """

    title: str
    arch: str
    checkpoint: str
    widths: str
    epochs: int
    tune: int
    few: str | None = None


def cases(run: Experiment) -> dict[str, Case]:
    """The four cuts by their names."""
    resnet = ("models/resnet.py:resnet14", "models/fashion_resnet14.pt")
    return {
        "convnet": Case(
            "ConvNet", "models/convnet.py:convnet", run.file("convnet.pt"), "conv1=8,conv2=16,conv3=32", 2, 1
        ),
        "mlp": Case("MLP", "models/mlp.py:mlp", run.file("mlp.pt"), "layers.0=50,layers.1=100", 8, 8),
        "resnet14-inner": Case("ResNet-14, inside its blocks", *resnet, INNER, 0, 10, FEW),
        "resnet14-streams": Case("ResNet-14, streams too", *resnet, f"{INNER},{STREAMS}", 0, 10, FEW),
    }


def main() -> None:
    """Run what is missing, and write e2.json, e2.md and the picture."""
    assert __doc__ is not None
    given = common.given(__doc__, only=NAMES)
    if given.table:
        common.write_table("e2", told(common.known("e2")))
        return
    run = Experiment("e2")
    found: dict[str, Any] = {}
    for name, case in ((name, cases(run)[name]) for name in given.only or NAMES):
        if case.epochs:
            words = ["train", "--arch", case.arch, "--data", given.data, "--epochs", str(case.epochs)]
            words += ["--no-flip", "--pad", "0"]
            run.run(f"{name}-train", *words, "--out", case.checkpoint, trains=True)
        words = ["slim", case.checkpoint, "--arch", case.arch, "--widths", case.widths, "--importance", "l1"]
        words += ["--calibration", case.few, "--train", case.few] if case.few else []
        words += ["--finetune", str(case.tune), "--no-bench", "--data", given.data]
        words += ["--save", run.file(f"{name}.small.pt")]
        found[name] = row(case, run.run(name, *words, trains=True))
    draw(found, RESULTS / "e2.png")
    results = {"cases": found, "tested_on": run.last["data"]}
    run.write(results, told({**results, "versions": run.last["versions"], "machine": run.last["machine"]}))


def row(case: Case, slim: dict[str, Any]) -> dict[str, Any]:
    """The figures of one cut."""
    accuracy, costs = slim["accuracy"], slim["costs"]
    stages = {stage["name"]: stage["accuracy"]["top1"] for stage in slim["stages"] if stage["accuracy"]}
    return {
        "title": case.title,
        "arch": case.arch,
        "widths": case.widths,
        "epochs": case.epochs,
        "tune_epochs": case.tune,
        "before": accuracy["original"]["top1"],
        "masked": accuracy["masked"]["top1"],
        "cut": stages["cut"],
        "absorbed": stages.get("absorbed"),
        "tuned": accuracy["pruned"]["top1"],
        "parameters": [costs["before"]["parameters"], costs["after"]["parameters"]],
        "macs": [costs["before"]["macs"], costs["after"]["macs"]],
        "groups": [group for group in slim["cut"]["groups"] if group["pinned"] is None],
        "max_relative_error": slim["exactness"]["max_relative_error"],
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """Accuracy before, after the cut and after fine-tuning, a group of bars for every network."""
    from matplotlib.figure import Figure

    from compress.report.plots import COLOURS, save

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, (stage, colour) in enumerate(
        zip(("before", "cut", "tuned"), ("#9ca3af", *COLOURS[1::-1]), strict=True)
    ):
        places = [i + 0.27 * (number - 1) for i in range(len(found))]
        values = [100 * case[stage] for case in found.values()]
        axes.bar(places, values, width=0.25, color=colour, label={"tuned": "fine-tuned"}.get(stage, stage))
        for place, value in zip(places, values, strict=True):
            axes.text(place, value + 1, f"{value:.1f}", ha="center", fontsize=7)
    axes.set_xticks(range(len(found)), [case["title"].replace(", ", ",\n") for case in found.values()], fontsize=8)
    axes.set_ylabel("top-1, %", fontsize=9)
    axes.set_ylim(0, 112)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    save(figure, path)


def told(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = [
        (
            case["title"],
            f"`{case['widths'].replace(',', ', ')}`",
            f"{case['parameters'][0]:,} -> {case['parameters'][1]:,}",
            f"{case['macs'][1] / case['macs'][0]:.3f}",
            points(case["before"]),
            points(case["masked"]),
            points(case["cut"]),
            points(case["absorbed"]) if case["absorbed"] else "",
            points(case["tuned"]),
        )
        for case in found["cases"].values()
    ]
    head = (
        "network",
        "widths that stay",
        "parameters",
        "MACs left",
        "before",
        "masked",
        "cut",
        "absorbed",
        "fine-tuned",
    )
    trained = ", ".join(f"{c['title']} {c['epochs']} epochs" for c in found["cases"].values() if c["epochs"])
    cases, few = found["cases"].values(), [c["title"] for c in found["cases"].values() if c["absorbed"]]
    epochs = ", ".join(f"{c['title']} {c['tune_epochs']}" for c in cases)
    won = f" {' and '.join(few)}: on the 1,000 shipped images, from which what left was absorbed before." if few else ""
    return page(
        "# E2: L1 filter pruning to named widths",
        f"`python benchmarks/experiments/e2.py`; {common.where(found)}.",
        f"Trained here: {trained}; a ResNet-14 is `models/fashion_resnet14.pt`. Top-1 on {found['tested_on']}.",
        table(head, rows),
        f"Epochs of fine-tuning: {epochs}.{won}",
        picture("e2.png", "accuracy before, after the cut and after fine-tuning"),
    )


if __name__ == "__main__":
    main()
