"""Which images a training learns from, and which are held out of it; never the ones that accuracy is reported on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from compress.core.errors import DataError
from compress.core.progress import Progress
from compress.evaluation.data import Data, Prepared
from compress.recovery.training.recipe import HELD_OUT_MOST, Recipe
from compress.recovery.training.samples import InMemory, OnDisk, Samples, parted

STATISTICS = 2000  # images whose mean and deviation stand for all that do not fit into memory
MEMORY = 2**29  # floating-point numbers (2 GiB) that images may take; what is more is read while training


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """Images to learn from and those held out (None: none), where they come from in words, and what was left out."""

    samples: Samples
    held: Samples | None
    source: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say how many images of what are learned from and held out."""
        held = f", {len(self.held):,} held out" if self.held is not None else ""
        return f"{self.source}: {len(self.samples):,} images{held}"


def learning_from(data: Data, recipe: Recipe, told: Progress, *, reported: Iterable[Tensor] = ()) -> Learning:
    """Divide the images of `data`, in memory where they fit, into those learned from and those held out.

    Images that also occur in `reported`, batches of inputs on which figures are given, are left out, found by their
    contents (only where `data` is in memory). Raises DataError where nothing is left.
    """
    if not fits_memory(data):
        numbers, held = parted(len(data), recipe.held_out, HELD_OUT_MOST, recipe.seed)
        labels = torch.tensor(_labels(data)) if data.labelled else None
        notes = (f"{data.name} is read while training: images that are reported on too were not looked for",)
        on_disk = [
            Samples(OnDisk(data.dataset, part), None if labels is None else labels[part], _fill(data))
            for part in (numbers, held)
        ]
        return Learning(samples=on_disk[0], held=on_disk[1] if len(held) else None, source=data.name, notes=notes)
    inputs, labels = in_memory(data, told)
    return divided(inputs, labels, recipe, data.name, reported=reported, fill=_fill(data))


def divided(
    inputs: Tensor,
    labels: Tensor | None,
    recipe: Recipe,
    source: str,
    *,
    reported: Iterable[Tensor] = (),
    fill: Tensor | None = None,
) -> Learning:
    """Divide inputs that lie in memory, batch first, with their labels; else as `learning_from`."""
    fresh = unseen(inputs, reported)
    gone = len(inputs) - len(fresh)
    if not len(fresh):
        raise DataError(
            f"every image of {source} is one that figures are reported on: nothing is left to learn from",
            fix="give other images with --train, best the training part",
        )
    numbers, held = _divided(len(inputs), fresh, recipe)
    parts = [
        Samples(InMemory(inputs[part]), None if labels is None else labels[part], fill) for part in (numbers, held)
    ]
    notes = (f"{gone} of its images are reported on and were not learned from",) if gone else ()
    return Learning(samples=parts[0], held=parts[1] if len(held) else None, source=source, notes=notes)


def _divided(count: int, fresh: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return which of the `fresh` of so many inputs are learned from, and which are held out.

    All are divided first: what a training of the same images held out is held out again, whatever is left out besides,
    so that no image decides which its network has learned from. Where too few are left of those, the fresh are divided.
    """
    allowed = torch.zeros(count, dtype=torch.bool)
    allowed[fresh] = True
    parts = [part[allowed[part]] for part in parted(count, recipe.held_out, HELD_OUT_MOST, recipe.seed)]
    wanted = min(int(len(fresh) * recipe.held_out), HELD_OUT_MOST)
    if 2 * len(parts[1]) < wanted or not len(parts[0]):
        parts = [fresh[part] for part in parted(len(fresh), recipe.held_out, HELD_OUT_MOST, recipe.seed)]
    return parts[0], parts[1]


def unseen(inputs: Tensor, others: Iterable[Tensor]) -> Tensor:
    """Return the numbers of the inputs that are, number for number, in none of `others`.

    >>> unseen(torch.tensor([[1.0], [2.0], [3.0]]), [torch.tensor([[2.0]])]).tolist()
    [0, 2]
    """
    known = {item.numpy().tobytes() for batch in others for item in batch.detach().cpu().float().contiguous()}
    if not known:
        return torch.arange(len(inputs))
    return torch.tensor([i for i, item in enumerate(inputs) if item.contiguous().numpy().tobytes() not in known])


def fits_memory(data: Data) -> bool:
    """Whether all images of `data` may be held in memory."""
    first, _ = data.dataset[0]
    return math.prod(first.shape) * len(data) <= MEMORY


def in_memory(data: Data, told: Progress) -> tuple[Tensor, Tensor | None]:
    """Read every image: float32 (N, C, H, W) and int64 labels (N,), or None. DataError where sizes differ."""
    first, _ = data.dataset[0]
    inputs = torch.empty((len(data), *first.shape))
    with told.stage(f"read {data.name}", len(data)) as advance:
        for number in range(len(data)):
            image = data.dataset[number][0]
            if image.shape != first.shape:
                raise DataError(
                    f"{data.name} has images of shapes {tuple(first.shape)} and {tuple(image.shape)}",
                    fix="add --resize",
                )
            inputs[number] = image
            if number % 500 == 0:
                advance(number, len(data))
    return inputs, torch.tensor(_labels(data)) if data.labelled else None


def mean_and_std(data: Data, inputs: Tensor | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of every channel, over all `inputs`, or over some images of `data`."""
    if inputs is None:
        some = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:STATISTICS].tolist()
        inputs = torch.stack([data.dataset[number][0] for number in some])
    count = inputs.numel() // inputs.shape[1]
    mean = sum(part.double().sum((0, 2, 3)) for part in inputs.split(1000)) / count
    square = sum((part.double() - mean.view(-1, 1, 1)).square().sum((0, 2, 3)) for part in inputs.split(1000)) / count
    return tuple(mean.tolist()), tuple(square.sqrt().clamp_min(1e-6).tolist())


class _Held(Dataset[tuple[Tensor, int]]):
    """Held-out inputs with their labels, one by one."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        """Return one input and its label."""
        assert self._samples.labels is not None
        one = torch.tensor([number])
        return next(iter(self._samples.inputs.batches([one])))[0], int(self._samples.labels[number])


def as_data(samples: Samples, name: str) -> Data:
    """Return labelled samples as a data set, to be evaluated on."""
    return Data(
        dataset=_Held(samples), length=len(samples), class_names=(), name=name, preprocessing=None, labelled=True
    )


def _labels(data: Data) -> list[int]:
    if isinstance(data.dataset, Prepared):
        return data.dataset.labels()
    return [data.dataset[number][1] for number in range(len(data))]


def _fill(data: Data) -> Tensor | None:
    """What black is after normalisation: -mean / std for every channel."""
    steps = data.preprocessing
    return None if steps is None or not steps.mean else -torch.tensor(steps.mean) / torch.tensor(steps.std)
