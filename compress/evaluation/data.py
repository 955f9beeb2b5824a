"""Open a data set by its text and make its images the inputs of a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from compress.checkpoint.source import is_file_spec
from compress.core.errors import DataError
from compress.core.types import Preprocessing
from compress.evaluation.folders import read_factory, read_folder
from compress.evaluation.raw import Raw, Request, Split, named
from compress.evaluation.tables import read_npz
from compress.evaluation.transforms import fitted_steps, pipeline

NO_LABEL = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A data set ready for a network.

    `dataset` gives (float32 tensor (C, H, W), int label); the label is -1 where `labelled` is False.
    `preprocessing` is what was applied, None where the images were used as they are.
    """

    dataset: Dataset[tuple[Tensor, int]]
    length: int
    class_names: tuple[str, ...]
    name: str
    preprocessing: Preprocessing | None
    labelled: bool
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of images."""
        return self.length


class Prepared(Dataset[tuple[Tensor, int]]):
    """Gives every image through `prepare`, with its label."""

    def __init__(self, raw: Raw, prepare: Callable[[Any], Tensor]) -> None:
        self._raw = raw
        self._prepare = prepare

    def __len__(self) -> int:
        """Return the number of images."""
        return self._raw.length

    def labels(self) -> list[int]:
        """Return every label, or -1, without reading images where the labels are known apart from them."""
        if self._raw.labels is not None:
            return list(self._raw.labels)
        return [NO_LABEL if self._raw.label is None else self._raw.label(i) for i in range(self._raw.length)]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return image `index`, float32 (C, H, W), and its label or -1."""
        if not 0 <= index < self._raw.length:
            raise IndexError(index)
        image = self._prepare(self._raw.image(index))
        if self._raw.labels is not None:
            return image, self._raw.labels[index]
        return image, self._raw.label(index) if self._raw.label is not None else NO_LABEL


def open_data(
    spec: str,
    *,
    preprocessing: Preprocessing | None,
    channels: int,
    size: tuple[int, int] | None,
    classes: int | None = None,
    download: bool = False,
    split: Split = "test",
) -> Data:
    """Return the data set that `spec` names, ready for a network that reads `channels` channels of `size` (H, W).

    `spec` is `fashion-mnist[:DIR]`, `mnist[:DIR]`, `cifar10[:DIR]`, `cifar100[:DIR]`, `digits`, an image folder, an
    .npz file, or `file.py:factory`. `classes` is the number of the network's outputs, checked where given.
    Raises DataError where the data cannot be read or does not fit the network.
    """
    raw = _read(spec, split, download=download, channels=channels)
    if raw.length == 0:
        raise DataError(f"{spec} holds no images", fix="give a data set with at least one")
    _require_classes(raw, classes)
    first = raw.image(0)
    if isinstance(first, Tensor) and first.is_floating_point():
        _require_shape(raw, first, channels, size)
        return _data(raw, None, lambda image: image.float(), ())
    used = fitted_steps(preprocessing or Preprocessing(), channels, size)
    prepare, notes = pipeline(used, first, channels, size, raw.name)
    return _data(raw, used, prepare, notes)


@dataclass(frozen=True, slots=True)
class Look:
    """The shape (C, H, W) of the first image of a training part, and the number of classes, if that is known."""

    shape: tuple[int, ...]
    classes: int | None


def look(spec: str, *, download: bool = False) -> Look:
    """Look at the training part of what `spec` names, as `open_data` reads it. Raises DataError as that does."""
    raw = _read(spec, "train", download=download, channels=3)
    if raw.length == 0:
        raise DataError(f"{spec} holds no images", fix="give a data set with at least one")
    first = raw.image(0)
    if isinstance(first, Tensor):
        shape = tuple(first.shape)
    else:
        from torchvision.transforms import v2

        shape = tuple(v2.functional.to_image(first).shape)
    return Look(shape, len(raw.class_names) or (max(raw.labels) + 1 if raw.labels else None))


def _read(spec: str, split: Split, *, download: bool, channels: int) -> Raw:
    name, colon, place = spec.partition(":")
    path = Path(spec)
    if name in named:
        request = Request(place=Path(place) if colon else None, split=split, download=download, channels=channels)
        return named[name](request)
    if is_file_spec(spec):
        return read_factory(spec)
    if path.is_dir():
        return read_folder(Request(place=path, split=split, download=download, channels=channels))
    if path.suffix == ".npz":
        return read_npz(path)
    kinds = f"{', '.join(f'{known}[:DIR]' for known in named)}, an image folder, an .npz file, or file.py:factory"
    missing = "does not exist and is no data set's name" if not path.exists() else "is none of the known kinds of data"
    raise DataError(f"{spec} {missing}", fix=f"write one of {kinds}")


def _data(raw: Raw, used: Preprocessing | None, prepare: Callable[[Any], Tensor], notes: tuple[str, ...]) -> Data:
    return Data(
        dataset=Prepared(raw, prepare),
        length=raw.length,
        class_names=raw.class_names,
        name=raw.name,
        preprocessing=used,
        labelled=raw.labels is not None or raw.label is not None,
        notes=(*raw.notes, *notes),
    )


def _require_classes(raw: Raw, classes: int | None) -> None:
    if classes is None or not raw.labels:
        return
    if raw.one_to_one and len(raw.class_names) != classes:
        raise DataError(
            f"{raw.name} has {len(raw.class_names)} class folders, but the network has {classes} outputs",
            fix="give one folder for each output, in the outputs' order by name",
        )
    if max(raw.labels) >= classes:
        raise DataError(
            f"{raw.name} has labels up to {max(raw.labels)}, but the network has only {classes} outputs",
            fix="give the data set that the network was trained for",
        )


def _require_shape(raw: Raw, image: Tensor, channels: int, size: tuple[int, int] | None) -> None:
    wanted = (channels, *size) if size else (channels,)
    if tuple(image.shape[: len(wanted)]) != wanted:
        raise DataError(
            f"the images of {raw.name} have shape {tuple(image.shape)}, but the network reads {wanted}",
            fix="floats are used as they are: give them in the network's own shape, or give uint8 images",
        )
