"""A run of `compress train` as a chapter: how it learned, what each class reaches, and how sparse its scales are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.report.page.blocks import Bar, Bars, Chapter, Facts, Section, Tile, Tiles, plot
from compress.report.page.common import reproduce
from compress.report.page.runs import Run
from compress.report.units import count, duration, percentage


def chapter(run: Run) -> Chapter:
    """Return the chapter of a run of `train`."""
    data = run.data
    sections = [_headline(data), _learning(data), _classes(data), _scales(data)]
    told = f"{data['arch']} trained on {data['trained_on']}."
    found = tuple(section for section in sections if section is not None)
    return Chapter(run.key, run.name, told, "", (*found, *reproduce(run)))


def _headline(data: Mapping[str, Any]) -> Section:
    training, recipe = data["training"], data["recipe"]
    tiles = []
    if accuracy := data.get("accuracy"):
        tiles.append(Tile("top-1 accuracy", "", percentage(accuracy["top1"]), str(data["accuracy_on"])))
    tiles.append(Tile("parameters", "", count(data["parameters"]), ""))
    epochs = f"{len(training['epochs'])} of {recipe['epochs']}"
    tiles.append(Tile("epochs", "", epochs, f"{training['steps']:,} steps in {duration(training['seconds'])}"))
    if scales := data.get("scales"):
        near = percentage(scales["near_zero"])
        tiles.append(Tile("scales near zero", "", near, f"of {scales['number']:,} are below 0.01"))
    shown = ("name", "optimizer", "lr", "batch_size", "schedule", "seed")
    facts = Facts(tuple((key.replace("_", " "), str(recipe[key])) for key in shown if key in recipe))
    return Section("Recipe and result", "", (Tiles(tuple(tiles)), facts))


def _learning(data: Mapping[str, Any]) -> Section | None:
    epochs = data["training"]["epochs"]
    if not epochs:
        return None
    losses = [(e["number"], e["loss"], f"epoch {e['number']}: loss {e['loss']:.4f}") for e in epochs if e["loss"]]
    blocks = [plot("training loss, nats", "epoch", "loss", [("loss", losses)])]
    held = [(e["number"], e["score"]["right"]) for e in epochs if e.get("score")]
    if held:
        points = [(n, 100 * right, f"epoch {n}: {percentage(right)}") for n, right in held]
        blocks.append(plot("held-out accuracy, %", "epoch", "top-1, %", [("held-out", points)]))
    return Section("How it learned", "", tuple(blocks))


def _classes(data: Mapping[str, Any]) -> Section | None:
    accuracy = data.get("accuracy")
    if not accuracy or not accuracy.get("per_class"):
        return None
    names = data.get("class_names") or [f"class {i}" for i in range(len(accuracy["per_class"]))]
    pairs = sorted(zip(names, accuracy["per_class"], strict=False), key=lambda pair: pair[1] or 0.0)
    rows = tuple(Bar(name, 1.0, share or 0.0, percentage(share or 0.0)) for name, share in pairs)
    return Section("Accuracy of every class", f"On {data['accuracy_on']}.", (Bars("", rows, ("all", "right")),))


def _scales(data: Mapping[str, Any]) -> Section | None:
    scales = data.get("scales")
    if not scales:
        return None
    most = max(scales["counts"]) or 1
    edges = scales["edges"]
    rows = tuple(
        Bar(f"{low:.3f} to {high:.3f}", 0.0, number / most, f"{number:,}")
        for low, high, number in zip(edges, edges[1:], scales["counts"], strict=False)
    )
    lead = "How many BatchNorm scales are how large: those near zero can leave."
    return Section("BatchNorm scales", lead, (Bars("", rows, ("", "scales")),))
