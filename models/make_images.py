"""Take the small image sets in models/fashion-mnist/ out of the full Fashion-MNIST.

python models/make_images.py --data DIR [--out models/fashion-mnist]

DIR holds the four idx files (`train-images-idx3-ubyte.gz` ...), as the Debian package `dataset-fashion-mnist` installs
them in /usr/share/datasets/fashion-mnist. The same numbers of every class are drawn with a fixed seed, so the files
come out the same every time.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped idx file of bytes: 2 zero bytes, the type 8, the number of dimensions, big-endian sizes, data."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise SystemExit(f"cannot read {path}: {error}; --data names the folder of the four idx .gz files") from error
    if raw[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is not an idx file of bytes")
    dimensions = raw[3]
    shape = np.frombuffer(raw, ">u4", dimensions, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(tuple(int(n) for n in shape))


def read_split(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (N, 28, 28, 1) uint8 and labels (N,) int64 of `split`, "train" or "t10k"."""
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz")[..., None]
    return images, read_idx(folder / f"{split}-labels-idx1-ubyte.gz").astype(np.int64)


def balanced(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return `count` positions in ascending order, the same number of every class."""
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    chosen = [rng.permutation(np.flatnonzero(labels == c))[: count // len(classes)] for c in classes]
    return np.sort(np.concatenate(chosen))


def main() -> None:
    """Write calibration.npz, test.npz and classes.json."""
    parser = argparse.ArgumentParser(description="Draw the small Fashion-MNIST sets that the repository ships.")
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "fashion-mnist", metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, split, count in (("calibration", "train", 1000), ("test", "t10k", 2000)):
        images, labels = read_split(args.data, split)
        kept = balanced(labels, count, args.seed)
        np.savez_compressed(args.out / f"{name}.npz", x=images[kept], y=labels[kept])
        print(f"{args.out / f'{name}.npz'}: {len(kept)} of {len(labels)} images")
    (args.out / "classes.json").write_text(json.dumps(CLASSES, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
