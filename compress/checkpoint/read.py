"""Any checkpoint -> Network: see what the file is, then let the reader of that format do the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compress.checkpoint.architecture import Home, parse
from compress.checkpoint.exported import read_exported
from compress.checkpoint.fit import fill, free_sizes, shapes_of
from compress.checkpoint.identify import CLASSES, NEAREST, Fit, candidates, fit, identify
from compress.checkpoint.inputs import (
    checked,
    example,
    image_channels,
    known_preprocessing,
    recorded_preprocessing,
    require_channels,
    shape_unknown,
)
from compress.checkpoint.pickles import read_safetensors, read_tensors, read_trusted
from compress.checkpoint.published import is_published, published_switches, renamed
from compress.checkpoint.saved import is_saved, read_saved, refuse_unnamed_file
from compress.checkpoint.skeleton import quietly
from compress.checkpoint.sniff import Format, sniff
from compress.checkpoint.statedict import WRAPPERS, Weights, require_no_nan, weights_in, without_outer
from compress.checkpoint.torchscript import read_torchscript
from compress.core.errors import CheckpointError
from compress.core.types import Network, Preprocessing


def load(
    path: str | Path,
    *,
    arch: str | None = None,
    arch_options: Mapping[str, Any] | None = None,
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    trust: bool = False,
) -> Network:
    """Return the network in the file at `path`, whatever wrote it, in eval mode on the CPU.

    `arch` names the architecture ("resnet18", "timm:NAME", "file.py:factory"; that file is then executed);
    without it, the one recorded in the file is taken, else it is found from the keys and shapes. `arch_options`
    go to its constructor, over those recorded. `input_shape` has the batch first. `trust` allows running code that
    the file carries or names. Raises CheckpointError or UsageError, each saying what to do.
    """
    path = Path(path)
    options = dict(arch_options or {})
    if num_classes is not None:
        options["num_classes"] = num_classes
    layout = sniff(path)
    if layout in (Format.TORCHSCRIPT, Format.EXPORTED):
        return _own_graph(path, layout, arch, options, input_shape)
    data: Any = read_safetensors(path) if layout is Format.SAFETENSORS else _torch_file(path, trust)
    if is_saved(data):
        return read_saved(data, path, arch=arch, arch_options=options, input_shape=input_shape, trust=trust)
    module = _module_in(data)
    if module is not None:
        _require_no_arch(path, arch, options)
        return _from_module(module, path, input_shape)
    return _from_weights(weights_in(data, path), path, arch, options, input_shape, trust=trust)


def _own_graph(
    path: Path, layout: Format, arch: str | None, options: Mapping[str, Any], input_shape: tuple[int, ...] | None
) -> Network:
    _require_no_arch(path, arch, options)
    return (read_torchscript if layout is Format.TORCHSCRIPT else read_exported)(path, input_shape)


def _require_no_arch(path: Path, arch: str | None, options: Mapping[str, Any]) -> None:
    if arch is not None or options:
        raise CheckpointError(
            f"{path} holds a whole network, so no architecture or option of one can be given for it",
            fix="leave --arch and its options out",
        )


def _torch_file(path: Path, trust: bool) -> Any:
    """Read without running code where possible, also where the file is trusted."""
    try:
        return read_tensors(path)
    except CheckpointError:
        if not trust:
            raise
        return read_trusted(path)


def _module_in(data: object) -> nn.Module | None:
    if isinstance(data, nn.Module):
        return data
    parts = [data.get(key) for key in WRAPPERS] if isinstance(data, Mapping) else []
    return next((part for part in parts if isinstance(part, nn.Module)), None)


def _from_module(module: nn.Module, path: Path, input_shape: tuple[int, ...] | None) -> Network:
    module = module.cpu().float().eval()
    require_no_nan(module.state_dict(), path)
    notes = ["code from the file was run to unpickle it, as you allowed"]
    preprocessing = None
    if input_shape is None:
        try:
            found = identify(shapes_of(module.state_dict()))
        except CheckpointError as error:
            raise shape_unknown(path) from error
        preprocessing = known_preprocessing(found.arch, module, path, image_channels(module) or 0)
    shape, note = _shape(path, None, input_shape, preprocessing, image_channels(module))
    return Network(
        name=_stem(path),
        module=module,
        example=example(shape),
        kind="module",
        preprocessing=preprocessing,
        notes=(*notes, note),
    )


def _from_weights(
    weights: Weights,
    path: Path,
    arch: str | None,
    options: Mapping[str, Any],
    input_shape: tuple[int, ...] | None,
    *,
    trust: bool,
) -> Network:
    recorded = weights.recorded
    notes = list(weights.notes)
    named = arch or recorded.arch
    if arch is None and named is not None and not _known(named):
        notes.append(
            f"the file calls its architecture {named!r}, which is not a known name; looked at the tensors instead"
        )
        named = None
    if named is not None:
        refuse_unnamed_file(named, path, allowed=trust or arch is not None)
    recorded_options = recorded.arch_options if named is not None else {}
    found, tensors = _fitted(weights.tensors, path, named, {**recorded_options, **options})
    found, told = _switched(found, path)
    notes += told
    if named is None:
        notes.append(f"architecture: {found.arch} (from the keys and shapes)")
    module = _filled(found, tensors)
    channels = image_channels(module)
    known = known_preprocessing(found.arch, module, path, channels or 0)
    shape, note = _shape(path, recorded.input_shape, input_shape, known, channels)
    if found.arch.home is Home.TORCHVISION:
        require_channels(shape, channels or 3, found.arch.name)
    return Network(
        name=_stem(path),
        module=module,
        example=example(shape),
        kind="state_dict",
        arch=str(found.arch),
        arch_options=dict(found.options),
        preprocessing=recorded_preprocessing(recorded, known),
        notes=(*notes, note),
    )


def _known(named: str) -> bool:
    try:
        parse(named)
    except CheckpointError:
        return False
    return True


def _fitted(
    tensors: Mapping[str, Tensor], path: Path, named: str | None, options: Mapping[str, Any]
) -> tuple[Fit, Mapping[str, Tensor]]:
    """Return the architecture that `tensors` fit exactly, and the tensors under its names."""
    stripped = without_outer(tensors)
    if named is None:
        return _identified(stripped, path, options)
    forms = [tensors] if len(stripped) and stripped.keys() == tensors.keys() else [tensors, stripped]
    fits = [(fit(parse(named), shapes_of(form), options), form) for form in forms]
    best, form = min(fits, key=lambda pair: pair[0].difference.count)
    return _require_fit(best, path), form


def _require_fit(found: Fit, path: Path) -> Fit:
    if found.difference.count:
        options = f" with {dict(found.options)}" if found.options else ""
        raise CheckpointError(
            f"{path} does not fit {found.arch}{options}: the file {found.difference}",
            fix="name another --arch or other options; without --arch, all of torchvision's are compared",
        )
    return found


def _identified(
    tensors: Mapping[str, Tensor], path: Path, options: Mapping[str, Any]
) -> tuple[Fit, Mapping[str, Tensor]]:
    """Find the architecture by its tensors, also where they have names that only torchvision's loading knows."""
    try:
        found = identify(shapes_of(tensors))
    except CheckpointError as error:
        for near in candidates(shapes_of(tensors))[:NEAREST]:
            sizes = free_sizes(near.arch.shapes({}), shapes_of(tensors), CLASSES)
            today = renamed(near.arch, sizes, tensors)
            if today is not None:
                return _require_fit(fit(near.arch, shapes_of(today), {**sizes, **options}), path), today
        raise CheckpointError(f"{path}: {error.what}", fix=error.fix) from error
    return _require_fit(fit(found.arch, shapes_of(tensors), options) if options else found, path), tensors


def _switched(found: Fit, path: Path) -> tuple[Fit, list[str]]:
    """Settle the switches of a torchvision network that its tensors do not show, and say which way."""
    if found.arch.home is not Home.TORCHVISION:
        return found, []
    switches = published_switches(found.arch, found.options)
    if not switches:
        return found, []
    told = ", ".join(f"{key}={value}" for key, value in switches.items())
    if is_published(found.arch, path):
        note = f"{told}, as for torchvision's published weights"
        return replace(found, options={**found.options, **switches}), [note]
    note = (
        f"torchvision sets {told} for networks that start from its published {found.arch.name} weights; the file "
        "does not tell, and it was not set: give it in arch_options if yours does"
    )
    return found, [note]


def _filled(found: Fit, tensors: Mapping[str, Tensor]) -> nn.Module:
    module = found.arch.unfilled(found.options)
    if not fill(module, tensors):
        # something that is not saved was computed from uninitialised weights: build it the slow way
        module = quietly(lambda: found.arch.module(found.options))
        fill(module, tensors)
    return module


def _shape(
    path: Path,
    recorded: tuple[int, ...] | None,
    given: tuple[int, ...] | None,
    known: Preprocessing | None,
    channels: int | None,
) -> tuple[tuple[int, ...], str]:
    """Return the input shape, batch first, and where it comes from."""
    if given is not None:
        shape, source = checked(given), "as given"
    elif recorded is not None:
        shape, source = checked(recorded), "recorded in the file"
    elif known is not None and known.crop and channels:
        shape, source = (1, channels, known.crop, known.crop), known.source
    else:
        raise shape_unknown(path)
    return shape, f"input shape {','.join(map(str, shape))} ({source})"


def _stem(path: Path) -> str:
    return path.name.split(".")[0] or path.stem
