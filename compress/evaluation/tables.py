"""Data sets that are read into memory whole: CIFAR, scikit-learn's digits, and .npz files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress.core.errors import DataError
from compress.evaluation.idx import DOWNLOADS
from compress.evaluation.raw import Raw, Request, named

TEST_EVERY = 5


@named.register("cifar10")
def cifar10(request: Request) -> Raw:
    """Read CIFAR-10: 32 x 32 colour images of ten classes."""
    from torchvision.datasets import CIFAR10

    return _cifar(CIFAR10, "cifar10", request)


@named.register("cifar100")
def cifar100(request: Request) -> Raw:
    """Read CIFAR-100: 32 x 32 colour images of a hundred classes."""
    from torchvision.datasets import CIFAR100

    return _cifar(CIFAR100, "cifar100", request)


def _cifar(kind: Any, name: str, request: Request) -> Raw:
    folder = request.place or DOWNLOADS
    root = folder.parent if folder.name == kind.base_folder else folder
    try:
        table = kind(str(root), train=request.split == "train", download=request.download)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{name} is not in {folder}, or its files there are damaged: {error}",
            fix=f"name the folder that holds {kind.base_folder} as {name}:DIR, or add --download to fetch it",
        ) from error
    return Raw(
        name=f"{name} ({request.split})",
        length=len(table.data),
        image=lambda i: table.data[i],
        labels=list(table.targets),
        class_names=tuple(table.classes),
    )


@named.register("digits")
def digits(request: Request) -> Raw:
    """Read scikit-learn's digits: 1797 grey images of 8 x 8; every fifth one is the test part."""
    from sklearn.datasets import load_digits

    table = load_digits()
    held_out = np.arange(len(table.target)) % TEST_EVERY == 0
    chosen = held_out if request.split == "test" else ~held_out
    pixels = np.round(table.images[chosen] * (255 / 16)).astype(np.uint8)  # its grey levels run from 0 to 16
    return Raw(
        name=f"digits ({request.split})",
        length=len(pixels),
        image=lambda i: pixels[i],
        labels=table.target[chosen].tolist(),
        class_names=tuple(map(str, range(10))),
        notes=(f"scikit-learn's digits have no test part of their own: every {TEST_EVERY}th image is taken",),
    )


def read_npz(path: Path) -> Raw:
    """Read `x` (uint8 (N, H, W[, C]), or float32 (N, C, H, W) used as it is) and, where there is one, `y` (N,).

    Raises DataError where the file is damaged or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in ("x", "y") if key in archive.files}
            present = ", ".join(archive.files)
    except Exception as error:
        raise DataError(
            f"{path} is not a readable .npz file: {error}", fix="write it with numpy.savez(path, x=..., y=...)"
        ) from error
    if "x" not in arrays:
        raise DataError(f"{path} has no array x (it has {present or 'none'})", fix="name the images x and the labels y")
    x: np.ndarray[Any, Any] = arrays["x"]
    if not (x.dtype == np.uint8 and x.ndim in (3, 4)) and not (x.dtype == np.float32 and x.ndim >= 2):
        raise DataError(
            f"{path}: x is {x.dtype} of shape {x.shape}",
            fix="give uint8 (N, H, W, C), or float32 (N, C, H, W) that is used as it is",
        )
    ready = x.dtype == np.float32
    return Raw(
        name=path.name,
        length=len(x),
        image=(lambda i: torch.from_numpy(x[i])) if ready else (lambda i: x[i]),
        labels=_labels(arrays.get("y"), len(x), path),
    )


def _labels(y: np.ndarray[Any, Any] | None, length: int, path: Path) -> list[int] | None:
    if y is None:
        return None
    if y.shape != (length,) or y.dtype.kind not in "iu" or (length and int(y.min()) < 0):
        raise DataError(
            f"{path}: y is {y.dtype} of shape {y.shape}, for {length} images",
            fix="give one whole number from 0 for every image",
        )
    return [int(value) for value in y]
