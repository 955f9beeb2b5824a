"""E4: which channels of a pair network's last convolution are needed?

python benchmarks/experiments/e4.py [--data fashion-mnist:DIR] [--table]

Two 28 x 28 images stacked as two channels; are they of the same class? Pairs are drawn at random, so that one in ten
is "same": 60,000 pairs of training images, 10,000 pairs of test images. The channels of the last convolution leave
one by one, the least active first, and the weight 128 x 64 x 3 x 3 becomes (128 - K) x 64 x 3 x 3; the mean maps of
all 128 channels are drawn behind their ReLU, and those that are zero on every pair counted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))

import common
from common import ROOT, Experiment, page, picture, points, table

ARCH = "models/pairnet.py:pairnet"
EPOCHS, TAIL, CHANNELS = 3, 2, 128
SHOWN = (32, 64, 96, 112, 127)  # of the numbers of channels removed, in the table


def pairs(
    images: NDArray[np.uint8], labels: NDArray[np.int64], count: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw `count` pairs of two different images: x uint8 (count, H, W, 2), y 1 where both are of the same class.

    >>> x, y = pairs(np.zeros((4, 2, 2), np.uint8), np.array([0, 0, 0, 0]), 3, 0)
    >>> x.shape, y.tolist()
    ((3, 2, 2, 2), [1, 1, 1])
    """
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(images), count)
    second = (first + rng.integers(1, len(images), count)) % len(images)
    same = (labels[first] == labels[second]).astype(np.int64)
    return np.stack([images[first], images[second]], axis=-1), same


def drawn(data: str, split: Any, path: Path, seed: int) -> str:
    """Write as many pairs as there are images, unless they are there; return the path from the root."""
    if not path.is_file():
        from compress.evaluation.data import open_data

        opened = open_data(data, preprocessing=None, channels=1, size=(28, 28), split=split)
        every = [opened.dataset[i] for i in range(len(opened))]
        images = np.stack([np.round(255 * image.numpy()[0]).astype(np.uint8) for image, _ in every])
        x, y = pairs(images, np.array([label for _, label in every]), len(opened), seed)
        np.savez(path, x=x, y=y)
    return str(path.relative_to(ROOT))


def main() -> None:
    """Run what is missing, and write e4.json, e4.md and the pictures."""
    assert __doc__ is not None
    given = common.given(__doc__)
    if given.table:
        common.write_table("e4", told(common.known("e4")))
        return
    run = Experiment("e4")
    seen = drawn(given.data, "train", ROOT / run.file("pairs-train.npz"), seed=0)
    unseen = drawn(given.data, "test", ROOT / run.file("pairs-test.npz"), seed=1)
    net = run.file("pairnet.pt")
    words = ["train", "--arch", ARCH, "--data", seen, "--test", unseen, "--recipe", "activation", "--lr", "1e-3"]
    words += ["--batch-size", "128", "--epochs", str(EPOCHS), "--tail", str(TAIL), "--no-flip", "--pad", "0"]
    trained = run.run("train", *words, "--out", net, trains=True)
    look = (net, "--arch", ARCH, "--data", unseen)
    words = ["sweep", *look, "--calibration", seen, "--layer", "conv3", "--k", f"1:{CHANNELS}"]
    swept = run.run("sweep", *words, "--importance", "activation,l1", "--plot", run.picture("e4-sweep.png"))
    words = ["maps", *look, "--layer", "relu3", "--top", str(CHANNELS)]
    maps = run.run("maps", *words, "--out", run.picture("e4-maps.png"))
    labels = np.load(ROOT / unseen)["y"]
    found = {
        "network": {"arch": ARCH, "parameters": trained["parameters"]},
        "training": {"images": trained["trained_on"], "recipe": trained["recipe"]},
        "tested_on": trained["accuracy_on"],
        "same": float(labels.mean()),
        "top1": trained["accuracy"]["top1"],
        "per_class": trained["accuracy"]["per_class"],
        "sweep": {
            "channels": swept["channels"],
            "original": swept["original"]["top1"],
            "ranked_on": swept["ranked_on"],
            "weights": [p["shape"] for p in swept["curves"][0]["points"]][:: CHANNELS // 4],
            "top1": {c["importance"]: [[p["removed"], p["reached"]["top1"]] for p in c["points"]]
                     for c in swept["curves"]},
            "max_relative_error": swept["exactness"]["max_relative_error"],
            "points": swept["points"],
            "share_of_full": swept["share_of_full"],
        },
        "maps": {"dead": maps["dead"], "activation": maps["activation"], "images": maps["images"]},
    }  # fmt: skip
    run.write(found, told({**found, "versions": run.last["versions"], "machine": run.last["machine"]}))


def faint(activation: list[float], share: float) -> int:
    """How many channels have less than `share` of the largest mean activation.

    >>> faint([1.0, 0.04, 0.2, 0.0], 0.05)
    2
    """
    return sum(value < share * max(activation) for value in activation)


def told(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    sweep, maps, network = found["sweep"], found["maps"], found["network"]
    rows = []
    for name, curve in sweep["top1"].items():
        by = dict(map(tuple, curve))
        shown = [points(by[k]) for k in SHOWN]
        rows.append((name, *shown, *(str(common.within(curve, sweep["original"], loss)) for loss in (0.001, 0.01))))
    different, same = found["per_class"]
    return page(
        "# E4: the last convolution of a pair network",
        f"`python benchmarks/experiments/e4.py`; {common.where(found)}.",
        f"{network['arch']} ({network['parameters']:,} parameters), {found['training']['recipe']['epochs']} epochs of "
        f"Adam on {found['training']['images']}: {points(found['top1'])} of {found['tested_on']}. "
        f"{points(found['same'])} of the test pairs are of the same class: of those {points(same)} are told right, "
        f"of the others {points(different)}.",
        f"Top-1 with K of {sweep['channels']} channels of conv3 gone (original {points(sweep['original'])}); "
        f"{sweep['points']} networks were really cut, and measured in {sweep['share_of_full']:.3f} of the time of as "
        "many full evaluations:",
        table(("criterion", *(f"K = {k}" for k in SHOWN), "free within 0.1 point", "within 1 point"), rows),
        picture("e4-sweep.png", "accuracy against channels removed"),
        f"Mean maps of all {sweep['channels']} channels behind their ReLU, over {maps['images']:,} pairs: "
        f"{len(maps['dead'])} are zero on every pair, {faint(maps['activation'], 0.05)} have less than a twentieth of "
        "the largest mean activation.",
        picture("e4-maps.png", "mean feature maps of the last convolution"),
    )


if __name__ == "__main__":
    main()
