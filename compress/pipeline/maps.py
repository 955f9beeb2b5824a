"""`compress maps`: the mean feature maps of one layer over a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from compress.core.errors import UsageError
from compress.core.progress import Progress, Silent
from compress.evaluation.variants import CHUNK
from compress.graph.modules import quiet_module, set_mode
from compress.pipeline.exploring import ExploreOptions, Subject, subject
from compress.report.maps import Maps
from compress.surgery.submodule import find


@dataclass(frozen=True, slots=True, kw_only=True)
class MapsOptions:
    """Everything that `compress maps` can be told; `top` maps are drawn."""

    explore: ExploreOptions
    layer: str
    top: int = 64


@dataclass(slots=True)
class _Sums:
    """Sums over images of the maps (C, H, W), of magnitudes (C,), and the largest magnitudes (C,)."""

    images: int = 0
    maps: Tensor = field(default_factory=lambda: torch.zeros(0))
    size: Tensor = field(default_factory=lambda: torch.zeros(0))
    largest: Tensor = field(default_factory=lambda: torch.zeros(0))

    def add(self, y: Tensor) -> None:
        """y (N, C, H, W)."""
        wide, count = y.double(), len(y)
        maps, size = wide.sum(0), wide.abs().mean((2, 3)).sum(0)
        largest = wide.abs().amax((0, 2, 3))
        if self.images:
            maps, size, largest = maps + self.maps, size + self.size, torch.maximum(largest, self.largest)
        self.maps, self.size, self.largest, self.images = maps, size, largest, self.images + count


def run_maps(options: MapsOptions, progress: Progress | None = None) -> Maps:
    """Do what `compress maps` does, and return every figure. Raises CompressError subclasses."""
    told = progress or Silent()
    about = subject(options.explore, told)
    module = about.network.module
    layer = find(module, options.layer)
    explore = options.explore
    order = torch.randperm(len(about.data), generator=torch.Generator().manual_seed(explore.seed)).tolist()
    order = order[: explore.images]
    if about.fixed is not None:
        order = order[: len(order) // about.fixed * about.fixed]
    sums, complete = _Sums(), True
    loader = DataLoader(Subset(about.data.dataset, order), batch_size=about.fixed or CHUNK)
    with told.stage("run", len(order)) as advance:
        try:
            for images, _ in loader:
                sums.add(_output(module, layer, images, options.layer))
                advance(sums.images, len(order))
        except KeyboardInterrupt:
            if not sums.images:
                raise
            complete = False
    return _found(about, options, sums, len(order), complete=complete)


def _output(module: nn.Module, layer: nn.Module, images: Tensor, path: str) -> Tensor:
    """What the layer gives for these images, (N, C, H, W); a layer that runs several times, the first time."""
    seen: list[Any] = []

    def note(_: nn.Module, _inputs: Any, y: Any) -> None:
        if not seen:  # a copy, since what follows may write into the result (`y += x`)
            seen.append(y.clone() if isinstance(y, Tensor) else y)

    handle = layer.register_forward_hook(note)
    try:
        with quiet_module(module):
            set_mode(module, train=False)
            module(images.clone())
    finally:
        handle.remove()
    if not seen:
        raise UsageError(
            f"{path} is never called: the network was loaded as a graph, or does not use it in evaluation",
            fix="name another layer; for a file with its own graph, give the state_dict and --arch instead",
        )
    (y,) = seen
    if not isinstance(y, Tensor) or y.dim() not in (2, 4):
        shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise UsageError(f"{path} gives {shape}, not maps of shape (N, C, H, W)", fix="name another layer")
    return y if y.dim() == 4 else y[..., None, None]


def _found(about: Subject, options: MapsOptions, sums: _Sums, asked: int, *, complete: bool) -> Maps:
    activity = (sums.size / sums.images).numpy()
    largest = sums.largest.numpy()
    order = np.argsort(-activity, kind="stable")
    return Maps(
        origin=about.origin("maps"),
        layer=options.layer,
        maps=(sums.maps / sums.images).numpy(),
        activity=activity,
        largest=largest,
        order=tuple(order.tolist()),
        shown=min(options.top, len(order)),
        dead=tuple(np.flatnonzero(largest == 0).tolist()),
        images=sums.images,
        asked=asked,
        complete=complete,
    )
