"""E1: network slimming (Liu et al., ICCV 2017, arXiv:1708.06519) of a VGG-11, narrowed.

python benchmarks/experiments/e1.py [--data fashion-mnist:DIR] [--table]

The same network is trained on Fashion-MNIST without a penalty on its BatchNorm scales, with the paper's s = 1e-4, and
with a larger s: the pull on a scale adds up over the steps (s times the sum of the learning rates), and these epochs
are a fiftieth of the paper's steps. From each, 70 % of all channels leave by one threshold on |gamma| over the whole
network. The one of the larger s is then fine-tuned. The original, and the small network from scratch ("rethinking"),
are trained for as many epochs as that one has had in all. Epochs, and the rate of the fine-tuning, are chosen on 5,000
training images. All trainings change images alike: shifted by up to two pixels, not mirrored.
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
CFG = [32, "M", 64, "M", 128, 128, "M", 256, 256, "M", 256, 256]
SPARSE, TUNE = 12, 12  # epochs with the penalty, and of fine-tuning
WHOLE = SPARSE + TUNE  # of the original and of training from scratch: as many as the cut network has had in all
LONGER = 24  # epochs of another fine-tuning, for which there is an original of SPARSE + LONGER epochs
PENALTIES = {"0": WHOLE, "1e-4": SPARSE, "1e-3": SPARSE}  # and the epochs with it
CHOSEN = "1e-3"
RATES = ("0.1", "0.2")  # the highest of the fine-tuning; held-out training images say which
PERCENT = 0.7
BATCH = "256"

# Table 1 of the paper: CIFAR-10, the whole VGG-19, 160 epochs
PUBLISHED = {"before": 1 - 0.0634, "after": 1 - 0.0620, "parameters": 0.885, "flops": 0.51}


def trained(run: Experiment, name: str, cfg: list[int | str], penalty: str, data: str, epochs: int) -> dict[str, Any]:
    """Train a VGG of these widths, by the paper's recipe but for a cosine, gentler augmentation and fewer epochs."""
    words = ["train", "--arch", ARCH, "--option", f"cfg={json.dumps(cfg, separators=(',', ':'))}", "--data", data]
    words += ["--recipe", "slimming", "--batch-size", BATCH, "--lr", "0.2", "--epochs", str(epochs)]
    words += ["--sparsity", penalty]
    words += ["--schedule", "cosine", "--no-flip", "--pad", "2", "--channels-last", "--out", run.file(f"{name}.pt")]
    return run.run(name, *words, trains=True)


def named(penalty: str) -> str:
    """The name of the network that was trained with this penalty; the original, trained for longer, says so."""
    epochs = PENALTIES[penalty]
    return f"vgg11-s{penalty}" if epochs == SPARSE else f"vgg11-s{penalty}-{epochs}"


def cut(run: Experiment, penalty: str, data: str, *more: str, name: str) -> dict[str, Any]:
    """Let 70 % of all channels leave by their BatchNorm scales; masked and pruned network are both tested."""
    words = ["slim", run.file(f"{named(penalty)}.pt"), "--arch", ARCH, "--percent", str(PERCENT), "--importance", "bn"]
    words += ["--round-to", "1", "--no-bench", "--data", data, *more]
    return run.run(name, *words, trains="--finetune" in more)


def tune(run: Experiment, epochs: int, rate: str, data: str) -> dict[str, Any]:
    """Cut the network of the chosen penalty, absorb what left, then train what is left as the others were trained."""
    name = f"tuned-{epochs}-lr{rate}"
    more = ["--calibration", data, "--finetune", str(epochs), "--lr", rate, "--batch-size", BATCH, "--channels-last"]
    return cut(run, CHOSEN, data, *more, "--save", run.file(f"{name}.pt"), name=name)


def held_out(slim: dict[str, Any]) -> float:
    """Accuracy after fine-tuning on the training images that were held out."""
    return float(next(stage["held_out"] for stage in slim["stages"] if stage["name"] == "tuned"))


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
    networks = {CHOSEN: trained(run, named(CHOSEN), CFG, CHOSEN, given.data, PENALTIES[CHOSEN])}
    each = {rate: tune(run, TUNE, rate, given.data) for rate in RATES}
    rate = max(each, key=lambda rate: held_out(each[rate]))
    tuned, longer = each[rate], tune(run, LONGER, rate, given.data)
    for penalty, epochs in PENALTIES.items():
        networks[penalty] = trained(run, named(penalty), CFG, penalty, given.data, epochs)
    layers = {penalty: scales(ROOT / run.file(f"{named(penalty)}.pt")) for penalty in PENALTIES}
    cuts = {penalty: cut(run, penalty, given.data, name=f"cut-s{penalty}") for penalty in PENALTIES}
    small = tuned["cut"]["cfg_after"]
    scratch = trained(run, "scratch", small, "0", given.data, WHOLE)
    found = collected(networks, cuts, tuned, scratch, layers)
    found["tuned"]["rate"] = float(rate)
    whole = trained(run, f"vgg11-s0-{SPARSE + LONGER}", CFG, "0", given.data, SPARSE + LONGER)
    found["whole"] = {**reached(whole), "epochs": SPARSE + LONGER}
    found["longer"] = {"epochs": LONGER, "top1": longer["accuracy"]["pruned"]["top1"], "held_out": held_out(longer)}
    found["rates"] = {
        rate: {"top1": slim["accuracy"]["pruned"]["top1"], "held_out": held_out(slim)} for rate, slim in each.items()
    }
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
                "epochs": PENALTIES[penalty],
                **reached(networks[penalty]),
                "scales_near_zero": networks[penalty]["scales"]["near_zero"],
                "threshold": threshold(layers[penalty], PERCENT),
                **three(cuts[penalty]),
            }
            for penalty in PENALTIES
        },
        "tuned": {
            **three(tuned),
            "absorbed": absorbed(tuned),
            "top1": tuned["accuracy"]["pruned"]["top1"],
            "held_out": held_out(tuned),
            "epochs": TUNE,
        },
        "scratch": {**reached(scratch), "epochs": WHOLE},
        "costs": costs,
        "cfg_after": tuned["cut"]["cfg_after"],
        "published": PUBLISHED,
    }


def reached(training: dict[str, Any]) -> dict[str, float]:
    """Accuracy on the test images, and on the held-out training images, which chose the epoch."""
    return {"top1": training["accuracy"]["top1"], "held_out": training["training"]["best"]["right"]}


def absorbed(slim: dict[str, Any]) -> float:
    """Accuracy when what left is absorbed, before any training.

    >>> absorbed({"stages": [{"name": n, "kept": n != "recalibrated", "accuracy": {"top1": a}}
    ...                      for n, a in (("cut", 0.2), ("absorbed", 0.8), ("recalibrated", 0.7), ("tuned", 0.9))]})
    0.8
    """
    kept = [stage for stage in slim["stages"] if stage["kept"] and stage["name"] != "tuned"]
    return float(kept[-1]["accuracy"]["top1"])


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
    scratch, longer, whole, none = found["scratch"], found["longer"], found["whole"], "-"
    sparse = found["penalties"][found["chosen"]]
    computation = (sparse["epochs"] + longer["epochs"] * after["macs"] / before["macs"]) / plain["epochs"]
    beside = [
        (f"original, {plain['epochs']} epochs without penalty", *_both(plain), points(published["before"])),
        (f"original, {whole['epochs']} epochs without penalty", *_both(whole), none),
        (f"{sparse['epochs']} epochs with s = {found['chosen']} (paper: 1e-4)", *_both(sparse), none),
        ("channels removed", points(tuned["removed"] / tuned["channels"]), none, "70 %"),
        ("masked", points(tuned["masked"]), none, none),
        ("pruned", points(tuned["pruned"]), none, none),
        ("pruned, what left absorbed", points(tuned["absorbed"]), none, none),
        (f"and fine-tuned for {tuned['epochs']} epochs", *_both(tuned), points(published["after"])),
        (f"or for {longer['epochs']} epochs", *_both(longer), none),
        (f"the small network from scratch, {scratch['epochs']} epochs", *_both(scratch), none),
        ("parameters removed", points(1 - after["parameters"] / before["parameters"]), none,
         points(published["parameters"])),
        ("FLOPs removed", points(1 - after["macs"] / before["macs"]), none, points(published["flops"])),
    ]  # fmt: skip
    head = ("", "before", "scales below 0.01", "threshold", "masked", "pruned", "largest difference, float64")
    return page(
        "# E1: network slimming of a VGG",
        f"`python benchmarks/experiments/e1.py`; {common.where(found)}.",
        f"{network['arch']} of widths `{network['cfg']}` ({network['parameters']:,} parameters) on 28 x 28 images; "
        f"{training['images']}; SGD, {recipe['batch_size']} images a step in {training['precision']}, a cosine from "
        f"{recipe['lr']:g} to 0. Top-1 on {found['tested_on']}.",
        picture("e1-scales.png", "histograms of the BatchNorm scales"),
        "70 % of all channels removed by one threshold over the whole network, nothing trained afterwards:",
        table(head, [_row(penalty, row) for penalty, row in found["penalties"].items()]),
        "The last column compares the outputs of masked and pruned network, over the largest output.",
        table(("", "ours", "ours, held-out training images", "paper: VGG-19, CIFAR-10"), beside),
        f"Fine-tuning: a cosine from {tuned['rate']:g} to 0, the better on held-out training images of "
        f"{_rates(found)}. Original and small network are trained for as many epochs as the cut one in all; "
        f"the cut one that was fine-tuned for {longer['epochs']} has had {computation:.2f} of the computation of the "
        f"original of {plain['epochs']}. Widths left: `{found['cfg_after']}`",
        picture("e1-widths.png", "channels of every convolution before and after"),
    )


def _rates(found: dict[str, Any]) -> str:
    """All rates of the fine-tuning that were tried, with the accuracy on held-out and on test images."""
    each = found["rates"].items()
    return " and ".join(f"{rate} ({points(row['held_out'])} held-out, {points(row['top1'])})" for rate, row in each)


def _both(row: dict[str, Any]) -> tuple[str, str]:
    return points(row["top1"]), points(row["held_out"])


def _row(penalty: str, row: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"s = {penalty}, {row['epochs']} epochs",
        points(row["before"]),
        points(row["scales_near_zero"]),
        f"{row['threshold']:.3g}",
        points(row["masked"]),
        points(row["pruned"]),
        f"{row['max_relative_error']:.1e}",
    )


if __name__ == "__main__":
    main()
