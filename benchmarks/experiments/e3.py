"""E3: a ResNet-18 for small images, one layer's channels, its blocks, and what its last stage sees.

python benchmarks/experiments/e3.py [--data fashion-mnist:DIR] [--table]

The network is a fifth as wide as published (12 channels in the first stage), so that two cores train it in minutes.
The channels of layer2.1.conv2 leave one after the other, the least active first; every block is reduced to its
shortcut, and the ones that are missed least are taken out for good; the mean maps of the last stage are drawn.
Rankings and choices look at training images, accuracies are those of the test images.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import common
from common import Experiment, page, picture, points, table

ARCH = "models/resnet_cifar.py:resnet18"
WIDTH, EPOCHS, TAIL = 12, 2, 1
LAYER, CHANNELS = "layer2.1.conv2", 2 * WIDTH
DROPS = (2,)  # blocks that are taken out
FEW, TUNE = "models/fashion-mnist/calibration.npz", 10  # images and epochs of the fine-tuning afterwards
SWEPT, IMAGES = "2000", "1000"  # of the test images: for the sweeps, and for the table of groups
# CIFAR geometry, 128 channels in the layer; points lost without the last block, and without the third from the end
PUBLISHED = {"last": 0.6, "third from the end": 2.74, "collapse to": 62.12}


def main() -> None:
    """Run what is missing, and write e3.json, e3.md and the pictures."""
    assert __doc__ is not None
    given = common.given(__doc__)
    if given.table:
        common.write_table("e3", told(common.known("e3")))
        return
    run = Experiment("e3")
    net, data = run.file("resnet18.pt"), given.data
    words = ["train", "--arch", ARCH, "--option", f"width={WIDTH}", "--data", data, "--recipe", "activation"]
    trained = run.run("train", *words, "--epochs", str(EPOCHS), "--tail", str(TAIL), "--out", net, trains=True)
    look = (net, "--arch", ARCH, "--data", data)
    judged = ("--calibration", data)
    words = ["sweep", *look, *judged, "--layer", LAYER, "--k", f"1:{CHANNELS}", "--images", SWEPT]
    swept = run.run("sweep", *words, "--importance", "activation,l1", "--plot", run.picture("e3-sweep.png"))
    words = ["sensitivity", *look, *judged, "--importance", "activation", "--images", IMAGES]
    sensed = run.run("sensitivity", *words, "--plot", run.picture("e3-sensitivity.png"))
    maps = run.run("maps", "maps", *look, "--layer", "layer4", "--top", "64", "--out", run.picture("e3-maps.png"))
    drops = []
    for count in DROPS:
        words = ["slim", *look, *judged, "--drop-blocks", str(count), "--no-bench"]
        words += ["--save", run.file(f"drop-{count}.pt")]
        words += ["--finetune", str(TUNE), "--train", FEW]
        drops.append(dropped(run.run(f"drop-{count}", *words, trains=True)))
    found = {
        "network": {"arch": ARCH, "width": WIDTH, "parameters": trained["parameters"]},
        "training": {key: trained["training"][key] for key in ("steps", "precision")} | {"recipe": trained["recipe"]},
        "tested_on": trained["accuracy_on"],
        "top1": trained["accuracy"]["top1"],
        "per_class": dict(zip(trained["class_names"], trained["accuracy"]["per_class"], strict=True)),
        "sweep": curves(swept),
        "blocks": {"original": sensed["original"]["top1"], "images": sensed["images"], "each": blocks(sensed)},
        "drops": drops,
        "maps": {"layer": "layer4", "channels": maps["channels"], "dead": maps["dead"], "images": maps["images"]},
        "published": PUBLISHED,
    }
    run.write(found, told({**found, "versions": run.last["versions"], "machine": run.last["machine"]}))


def curves(swept: dict[str, Any]) -> dict[str, Any]:
    """The curves of a sweep: accuracy by the number of channels removed, and what the sweep took."""
    return {
        "what": swept["what"],
        "channels": swept["channels"],
        "original": swept["original"]["top1"],
        "images": swept["images"],
        "ranked_on": swept["ranked_on"],
        "top1": {c["importance"]: [[p["removed"], p["reached"]["top1"]] for p in c["points"]] for c in swept["curves"]},
        "max_relative_error": swept["exactness"]["max_relative_error"],
        "points": swept["points"],
        "share_of_full": swept["share_of_full"],
    }


def blocks(sensed: dict[str, Any]) -> list[dict[str, Any]]:
    """Every residual block reduced to its shortcut."""
    return [{key: b[key] for key in ("name", "identity", "parameters", "macs")} | {"top1": b["reached"]["top1"]}
            for b in sensed["blocks"]]  # fmt: skip


def dropped(slim: dict[str, Any]) -> dict[str, Any]:
    """What is left without some blocks, before and after an epoch of fine-tuning."""
    accuracy, costs = slim["accuracy"], slim["costs"]
    return {
        "blocks": next(w for w in slim["warnings"] if w.startswith("reduced to their shortcuts")),
        "masked": accuracy["masked"]["top1"],
        **{s["name"]: s["accuracy"]["top1"] for s in slim["stages"] if s["name"] in {"cut", "absorbed"}},
        "tuned": accuracy["pruned"]["top1"],
        "parameters_left": costs["after"]["parameters"] / costs["before"]["parameters"],
        "macs_left": costs["after"]["macs"] / costs["before"]["macs"],
    }


def told(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    recipe, maps, network = found["training"]["recipe"], found["maps"], found["network"]
    original, images = found["blocks"]["original"], found["blocks"]["images"]
    head = ("criterion", "half gone", "all but one", "free within 0.1 point", "within 1 point", "time")
    return page(
        "# E3: one layer, the blocks and the maps of a ResNet-18",
        f"`python benchmarks/experiments/e3.py`; {common.where(found)}.",
        f"{network['arch']} at width {network['width']} ({network['parameters']:,} parameters) on 28 x 28 images; "
        f"Adam, rate {recipe['lr']:g}, batch {recipe['batch_size']}, {recipe['epochs']} epochs, a cosine over the last "
        f"{recipe['tail']:g}: {points(found['top1'])} of {found['tested_on']}.",
        f"## Channels of {LAYER}",
        table(head, _swept(found["sweep"])),
        f"Top-1 on {found['sweep']['images']:,} test images. Time is that of the whole sweep over that of as many "
        "full evaluations.",
        picture("e3-sweep.png", "accuracy against channels removed from the layer"),
        "## Blocks reduced to their shortcuts",
        f"On {images:,} test images, from the last to the first; original {points(original)}.",
        table(("block", "shortcut", "top-1 without it", "points lost", "MACs of its branch"), _blocks(found["blocks"])),
        picture("e3-sensitivity.png", "accuracy for every group and block"),
        "Taken out for good by `--drop-blocks`, chosen on training images, absorbed, then fine-tuned on "
        "the 1,000 shipped ones; top-1 on all test images:",
        table(
            ("taken out", "parameters left", "MACs left", "masked", "cut", "absorbed", "fine-tuned"),
            map(_drop, found["drops"]),
        ),
        "## Mean maps of the last stage",
        f"The 64 most active of {maps['channels']} channels over {maps['images']:,} test images; {len(maps['dead'])} "
        "channels are zero on every image.",
        picture("e3-maps.png", "mean feature maps of layer4"),
    )


def _swept(sweep: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for name, curve in sweep["top1"].items():
        half = dict(map(tuple, curve))[sweep["channels"] // 2]
        free = [f"{common.within(curve, sweep['original'], loss)} of {sweep['channels']}" for loss in (0.001, 0.01)]
        rows.append((name, points(half), points(curve[-1][1]), *free, f"{sweep['share_of_full']:.3f}"))
    return rows


def _blocks(found: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            block["name"],
            "the input" if block["identity"] else "a 1x1 convolution",
            points(block["top1"]),
            f"{100 * (found['original'] - block['top1']):.2f}",
            f"{block['macs']:,}",
        )
        for block in reversed(found["each"])
    ]


def _drop(drop: dict[str, Any]) -> tuple[str, ...]:
    names = drop["blocks"].partition(": ")[2].partition(", missed")[0]
    left = [f"{drop[key]:.3f}" for key in ("parameters_left", "macs_left")]
    return (names, *left, *(points(drop[key]) for key in ("masked", "cut", "absorbed", "tuned")))


if __name__ == "__main__":
    main()
