"""E1: network slimming (Liu et al., ICCV 2017, arXiv:1708.06519) of a VGG-11 at a quarter of its width.

python benchmarks/experiments/e1.py [--data fashion-mnist:DIR] [--table]

The same network is trained on Fashion-MNIST without a penalty on its BatchNorm scales, with the paper's s = 1e-4, and
with a larger s: the pull on a scale adds up over the steps (s times the sum of the learning rates), and these epochs
are a hundredth of the paper's steps. From each, 70 % of all channels leave by one threshold on |gamma| over the whole
network. The one of the larger s is then fine-tuned, and its small network trained from scratch for as long as the
original was ("rethinking"). The original is also trained for as many epochs as the fine-tuned one has had in all: it
is what that one must be held against. Epochs are chosen on 5,000 training images.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import common
from common import RESULTS, ROOT, Experiment, page, picture, points, table

ARCH = "models/vgg.py:vgg11"
CFG = [16, "M", 32, "M", 64, 64, "M", 128, 128, "M", 128, 128]
EPOCHS, TUNE = 3, 5
PENALTIES = ("0", "1e-4", "5e-3")
CHOSEN = PENALTIES[-1]
PERCENT = 0.7

# Table 1 of the paper: CIFAR-10, the whole VGG-19, 160 epochs
PUBLISHED = {"before": 1 - 0.0634, "after": 1 - 0.0620, "parameters": 0.885, "flops": 0.51}


def trained(
    run: Experiment, name: str, cfg: list[int | str], penalty: str, data: str, epochs: int = EPOCHS
) -> dict[str, Any]:
    """Train a VGG of these widths by the paper's recipe in fewer epochs."""
    words = ["train", "--arch", ARCH, "--option", f"cfg={json.dumps(cfg, separators=(',', ':'))}", "--data", data]
    words += ["--recipe", "slimming", "--batch-size", "128", "--epochs", str(epochs), "--sparsity", penalty]
    words += ["--out", run.file(f"{name}.pt")]
    return run.run(name, *words, trains=True)


def cut(run: Experiment, penalty: str, data: str, *more: str, name: str) -> dict[str, Any]:
    """Let 70 % of all channels leave by their BatchNorm scales; masked and pruned network are both tested."""
    words = ["slim", run.file(f"vgg11-s{penalty}.pt"), "--arch", ARCH, "--percent", str(PERCENT), "--importance", "bn"]
    words += ["--round-to", "1", "--no-bench", "--data", data, *more]
    return run.run(name, *words, trains="--finetune" in more)


def scales(checkpoint: Path) -> list[list[float]]:
    """The absolute BatchNorm scales of every layer, first layer first."""
    import torch

    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    names = [name.removesuffix("running_mean") + "weight" for name in state if name.endswith("running_mean")]
    return [state[name].abs().tolist() for name in names]


def threshold(layers: list[list[float]], percent: float) -> float:
    """The value at position int(total * percent) of all scales, sorted: channels below it leave.

    >>> threshold([[0.3, 0.1], [0.2, 0.4]], 0.5)
    0.3
    """
    every = sorted(value for layer in layers for value in layer)
    return every[int(len(every) * percent)]


def below(layers: list[list[float]], limit: float) -> int:
    """How many scales are below `limit`.

    >>> below([[0.3, 0.1], [0.2, 0.4]], 0.3)
    2
    """
    return sum(value < limit for layer in layers for value in layer)


def main() -> None:
    """Run what is missing, and write e1.json, e1.md and the pictures."""
    assert __doc__ is not None
    given = common.given(__doc__)
    if given.table:
        common.write_table("e1", told(common.known("e1")))
        return
    run = Experiment("e1")
    networks, cuts, layers = {}, {}, {}
    for penalty in (CHOSEN, *PENALTIES[:-1]):
        networks[penalty] = trained(run, f"vgg11-s{penalty}", CFG, penalty, given.data)
        layers[penalty] = scales(ROOT / run.file(f"vgg11-s{penalty}.pt"))
    for penalty in PENALTIES:
        cuts[penalty] = cut(run, penalty, given.data, name=f"cut-s{penalty}")
    absorbed = cut(run, CHOSEN, given.data, "--calibration", given.data, name=f"absorbed-s{CHOSEN}")
    tuned = cut(
        run, CHOSEN, given.data, "--finetune", str(TUNE), "--save", run.file("tuned.pt"), name=f"tuned-s{CHOSEN}"
    )
    small = tuned["cut"]["cfg_after"]
    scratch = trained(run, "scratch", small, "0", given.data)
    longer = trained(run, "longer", CFG, "0", given.data, EPOCHS + TUNE)
    found = collected(networks, cuts, tuned, scratch, layers)
    found["longer"] = {"top1": longer["accuracy"]["top1"], "epochs": EPOCHS + TUNE}
    found["absorbed"] = {"top1": absorbed["accuracy"]["pruned"]["top1"], "from": absorbed["calibration"]}
    draw_scales(layers, RESULTS / "e1-scales.png")
    draw_widths(CFG, small, RESULTS / "e1-widths.png")
    run.write(found, told({**found, "versions": run.last["versions"], "machine": run.last["machine"]}))


def collected(
    networks: dict[str, Any],
    cuts: dict[str, Any],
    tuned: dict[str, Any],
    scratch: dict[str, Any],
    layers: dict[str, list[list[float]]],
) -> dict[str, Any]:
    """The figures that matter, by penalty where there are several networks."""
    costs = tuned["costs"]
    return {
        "network": {"arch": ARCH, "cfg": CFG, "input": [1, 28, 28], "parameters": networks["0"]["parameters"]},
        "training": {
            "images": networks["0"]["trained_on"],
            "recipe": networks["0"]["recipe"],
            "steps": networks["0"]["training"]["steps"],
            "precision": networks["0"]["training"]["precision"],
        },
        "tested_on": networks["0"]["accuracy_on"],
        "percent": PERCENT,
        "chosen": CHOSEN,
        "penalties": {
            penalty: {
                "top1": networks[penalty]["accuracy"]["top1"],
                "scales_near_zero": networks[penalty]["scales"]["near_zero"],
                "threshold": threshold(layers[penalty], PERCENT),
                **three(cuts[penalty]),
            }
            for penalty in PENALTIES
        },
        "tuned": {**three(tuned), "top1": tuned["accuracy"]["pruned"]["top1"], "epochs": TUNE},
        "scratch": {"top1": scratch["accuracy"]["top1"], "epochs": EPOCHS},
        "costs": costs,
        "cfg_after": tuned["cut"]["cfg_after"],
        "published": PUBLISHED,
    }


def three(slim: dict[str, Any]) -> dict[str, Any]:
    """Before, masked and pruned (before any training) of one run of `slim`, and how exact the cut is in float64."""
    accuracy = slim["accuracy"]
    cut_only = next((s["accuracy"] for s in slim["stages"] if s["name"] == "cut"), accuracy["pruned"])
    return {
        "before": accuracy["original"]["top1"],
        "masked": accuracy["masked"]["top1"],
        "pruned": cut_only["top1"],
        "removed": slim["cut"]["removed"],
        "channels": slim["cut"]["channels"],
        "max_relative_error": slim["exactness"]["max_relative_error"],
    }


def draw_scales(layers: dict[str, list[list[float]]], path: Path) -> None:
    """Histograms of |gamma| over all layers, one below the other, with the threshold of 70 %."""
    from matplotlib.figure import Figure

    from compress.report.plots import COLOURS, save

    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    places = figure.subplots(len(layers), 1, sharex=True)
    top = max(value for each in layers.values() for layer in each for value in layer)
    for axes, penalty, colour in zip(places, sorted(layers, key=float), COLOURS, strict=False):
        every = [value for layer in layers[penalty] for value in layer]
        limit = threshold(layers[penalty], PERCENT)
        axes.hist(every, bins=60, range=(0, top), color=colour, log=True)
        axes.axvline(limit, color="black", linewidth=1, linestyle="--")
        axes.set_title(f"s = {penalty}: 70 % of the scales are below {limit:.3g}", loc="left", fontsize=10)
        axes.set_ylabel("channels", fontsize=9)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    places[-1].set_xlabel("|gamma| of every BatchNorm layer after training")
    save(figure, path)


def draw_widths(before: list[int | str], after: list[int | str], path: Path) -> None:
    """Channels of every convolution before and after."""
    from matplotlib.figure import Figure

    from compress.report.plots import COLOURS, save

    pairs = [(b, a) for b, a in zip(before, after, strict=True) if isinstance(b, int) and isinstance(a, int)]
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(pairs)), [b for b, _ in pairs], color="#d1d5db", label="before")
    axes.bar(range(len(pairs)), [a for _, a in pairs], color=COLOURS[0], label="after")
    for place, (wide, left) in enumerate(pairs):
        axes.text(place, wide + 2, str(left), ha="center", fontsize=8)
    axes.set_xticks(range(len(pairs)), [str(i + 1) for i in range(len(pairs))], fontsize=8)
    axes.set_title("channels of every convolution, and how many are left", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    save(figure, path)


def told(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    training, network = found["training"], found["network"]
    recipe = training["recipe"]
    before, after = found["costs"]["before"], found["costs"]["after"]
    plain, tuned, published = found["penalties"]["0"], found["tuned"], found["published"]
    beside = [
        ("original, trained without penalty", points(plain["before"]), points(published["before"])),
        (f"the same, trained for {found['longer']['epochs']} epochs", points(found["longer"]["top1"]), "-"),
        (f"trained with s = {found['chosen']} (paper: 1e-4)", points(tuned["before"]), "-"),
        ("channels removed", points(tuned["removed"] / tuned["channels"]), "70 %"),
        ("masked", points(tuned["masked"]), "-"),
        ("pruned", points(tuned["pruned"]), "-"),
        ("pruned, what left absorbed, without training", points(found["absorbed"]["top1"]), "-"),
        ("pruned and fine-tuned", points(tuned["top1"]), points(published["after"])),
        ("the small network from scratch", points(found["scratch"]["top1"]), "-"),
        ("parameters removed", points(1 - after["parameters"] / before["parameters"]), points(published["parameters"])),
        ("FLOPs removed", points(1 - after["macs"] / before["macs"]), points(published["flops"])),
    ]
    head = ("", "before", "scales below 0.01", "threshold", "masked", "pruned", "largest difference, float64")
    return page(
        "# E1: network slimming of a VGG",
        f"`python benchmarks/experiments/e1.py`; {common.where(found)}.",
        f"{network['arch']} of widths `{network['cfg']}` ({network['parameters']:,} parameters) on 28 x 28 images; "
        f"{training['images']}; {recipe['epochs']} epochs, {training['steps']:,} steps of {recipe['batch_size']} "
        f"images in {training['precision']}, SGD, rate {recipe['lr']:g}, a tenth of it from the half on, a hundredth "
        f"from three quarters on. Top-1 on {found['tested_on']}.",
        picture("e1-scales.png", "histograms of the BatchNorm scales"),
        "70 % of all channels removed by one threshold over the whole network, nothing trained afterwards:",
        table(head, [_row(penalty, row) for penalty, row in found["penalties"].items()]),
        "The last column compares the outputs of masked and pruned network, over the largest output.",
        table(("", "ours", "paper: VGG-19, CIFAR-10"), beside),
        f"Fine-tuned for {tuned['epochs']} epochs; from scratch for {found['scratch']['epochs']}, as the original. "
        f"Widths left: `{found['cfg_after']}`",
        picture("e1-widths.png", "channels of every convolution before and after"),
    )


def _row(penalty: str, row: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"s = {penalty}",
        points(row["before"]),
        points(row["scales_near_zero"]),
        f"{row['threshold']:.3g}",
        points(row["masked"]),
        points(row["pruned"]),
        f"{row['max_relative_error']:.1e}",
    )


if __name__ == "__main__":
    main()
