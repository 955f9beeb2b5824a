"""Accuracy at a budget of MACs beside Torch-Pruning 1.6.1, on six small networks for Fashion-MNIST.

python benchmarks/accuracy_networks.py                      # once: train the networks
python benchmarks/accuracy.py [--part ours peer-all peer tune] [--only NAME ...] [--threads N]

Every measured cell is a line of `build/accuracy/accuracy.jsonl`; what is there already is not measured again.
`accuracy_table.py` copies them to `results/accuracy.jsonl` and writes the tables. Which images are used for what:

    training images 1 .. 55,000        the networks' training; calibration draws of 1,000; fine-tuning
    training images 58,001 .. 59,000   choosing the best of Torch-Pruning's variants
    all 10,000 test images             the accuracies that are reported, and nothing else
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accuracy_networks import FOLDER, NETWORKS, TRAINING, accuracy, images, steps_of, trained
from torch import Tensor, nn
from torch.utils.data import TensorDataset

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from compress.budget import Limits  # noqa: E402
from compress.core.budgets import Macs  # noqa: E402
from compress.core.clock import Clock  # noqa: E402
from compress.core.progress import Silent  # noqa: E402
from compress.evaluation.data import Data  # noqa: E402
from compress.evaluation.stages import evidence_of, recover  # noqa: E402
from compress.surgery.network import cut_network  # noqa: E402
from compress.surgery.planned import CutOptions  # noqa: E402

CELLS = FOLDER / "accuracy.jsonl"
TARGETS = (0.75, 0.5, 0.35, 0.25)
SEEDS = (0, 1, 2)
CALIBRATION = 1000
CHOOSING = slice(58_000, 59_000)  # training images on which Torch-Pruning's variants are compared
EPOCH = 6_400  # images of an epoch of fine-tuning, the first ones of the training set
PARTS = ("original", "ours", "peer-all", "peer", "tune")
MAGNITUDE = ("l1", "l2", "l2-first", "lamp", "fpgm", "bn")

Key = tuple[Any, ...]


def key_of(row: dict[str, Any]) -> Key:
    """What makes a cell: everything but what was measured."""
    names = ("part", "network", "variant", "target", "seed", "epochs")
    return tuple(row.get(name) for name in names)


class Store:
    """The lines of the results file, and which cells are there."""

    def __init__(self, path: Path) -> None:
        """Read what was measured before."""
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows: dict[Key, dict[str, Any]] = {key_of(row): row for row in map(json.loads, lines)}

    def has(self, **cell: Any) -> bool:
        """Whether the cell was measured."""
        return key_of(cell) in self.rows

    def add(self, **row: Any) -> None:
        """Append a line; a reader never sees half of one."""
        self.rows[key_of(row)] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    def of(self, part: str, name: str, target: float | None = None) -> list[dict[str, Any]]:
        """The lines of a part about a network (and a target)."""
        return [
            row
            for row in self.rows.values()
            if row["part"] == part and row["network"] == name and target in (None, row.get("target"))
        ]


def draw(seed: int) -> Tensor:
    """1,000 training images, without labels."""
    order = torch.randperm(TRAINING, generator=torch.Generator().manual_seed(seed))
    return images("train")[0][order[:CALIBRATION]]


def labelled(seed: int) -> tuple[Tensor, Tensor]:
    """The same images with their labels, for the criteria of Torch-Pruning that take gradients of the loss."""
    x, y = images("train")
    order = torch.randperm(TRAINING, generator=torch.Generator().manual_seed(seed))[:CALIBRATION]
    return x[order], y[order]


def original(store: Store, name: str) -> None:
    """The network before the cut."""
    if not store.has(part="original", network=name):
        network = trained(name)
        size = sum(p.numel() for p in network.parameters())
        store.add(part="original", network=name, accuracy=accuracy(network, images("t10k")), parameters=size)


def ours(store: Store, name: str, seeds: list[int]) -> None:
    """`compress slim --macs T --calibration`, with defaults but for widths, which may be any; every stage."""
    x, y = images("t10k")
    test = Data(
        dataset=TensorDataset(x, y), length=len(x), class_names=(), name="test", preprocessing=None, labelled=True
    )
    network = trained(name)
    for seed in seeds:
        calibration = draw(seed)
        evidence = evidence_of(network, calibration, None)  # the same for all targets, so it is gathered once
        for target in TARGETS:
            if store.has(part="ours", network=name, target=target, seed=seed):
                continue
            start = time.process_time()
            options = CutOptions(budget=Macs(target), limits=Limits(round_to=1), evidence=evidence)
            cut = cut_network(network, (calibration[:2],), options, Clock())
            stages = recover(network, cut, calibration, Silent(), Clock(), data=test)
            seconds = time.process_time() - start
            store.add(
                part="ours",
                network=name,
                target=target,
                seed=seed,
                macs=cut.after.macs / cut.before.macs,
                stages={s.name: 100 * s.accuracy.top1 for s in stages if s.accuracy is not None},
                accuracy=100 * [s for s in stages if s.kept and s.accuracy is not None][-1].accuracy.top1,
                cpu_seconds=seconds,
            )
            torch.save(cut.delivered.module, _kept(name, "ours", target, seed))


def _kept(name: str, variant: str, target: float, seed: int) -> Path:
    folder = FOLDER / "cut"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}-{variant}-{target}-{seed}.pt"


def peer_all(store: Store, name: str) -> None:
    """Every criterion and scope of Torch-Pruning at every target, judged on held-out training images."""
    from accuracy_peer import SCOPES, criteria, cuts, recalibrated

    x, y = images("train")
    judge, network = (x[CHOOSING], y[CHOOSING]), trained(name)
    for criterion in criteria():
        for scope in SCOPES:
            variant = f"{criterion}/{scope}"
            missing = [t for t in TARGETS if not store.has(part="peer-all", network=name, target=t, variant=variant)]
            if not missing:
                continue
            try:
                for target, model, macs in cuts(network, criterion, scope, missing, labelled(0)):
                    torch.save(model, _kept(name, variant.replace("/", "-"), target, 0))
                    again = accuracy(recalibrated(model, draw(0)[:500]), judge)
                    _screen(store, name, variant, target, macs=macs, recalibrated=again)
            except Exception as error:  # noqa: BLE001 - whatever the other tool raises is its result here
                for target in TARGETS:
                    if not store.has(part="peer-all", network=name, target=target, variant=variant):
                        _screen(store, name, variant, target, error=f"{type(error).__name__}: {error}"[:200])
            for target in TARGETS:
                if not store.has(part="peer-all", network=name, target=target, variant=variant):
                    _screen(store, name, variant, target, error="its loop ends above the target")


def _screen(store: Store, name: str, variant: str, target: float, **found: Any) -> None:
    store.add(part="peer-all", network=name, variant=variant, target=target, **found)


def best_of(store: Store, name: str, target: float) -> list[str]:
    """Torch-Pruning's best variants on held-out training images, recalibrated: of all, and of magnitude criteria."""
    rows = [row for row in store.of("peer-all", name, target) if "error" not in row]

    def best(among: list[dict[str, Any]]) -> str:
        return str(max(among, key=lambda row: row["recalibrated"])["variant"])

    plain = [row for row in rows if row["variant"].split("/")[0] in MAGNITUDE]
    return list(dict.fromkeys((best(rows), best(plain))))


def peer(store: Store, name: str) -> None:
    """Its best variants on the test images, recalibrated on each draw; one with labels is cut anew for each draw."""
    from accuracy_peer import cuts, recalibrated

    network, test = trained(name), images("t10k")
    for target in TARGETS:
        for variant in best_of(store, name, target):
            for seed in SEEDS:
                if store.has(part="peer", network=name, target=target, variant=variant, seed=seed):
                    continue
                model = torch.load(_kept(name, variant.replace("/", "-"), target, 0), weights_only=False)
                criterion, scope = variant.split("/")
                if seed and criterion in ("taylor", "hessian", "obdc", "activation"):
                    model = next(cuts(network, criterion, scope, [target], labelled(seed)))[1]
                again = recalibrated(model, draw(seed))
                torch.save(again, _kept(name, variant.replace("/", "-") + "-again", target, seed))
                store.add(
                    part="peer",
                    network=name,
                    target=target,
                    variant=variant,
                    seed=seed,
                    shipped=accuracy(model, test),
                    recalibrated=accuracy(again, test),
                )


def tune(store: Store, name: str, targets: list[float], seeds: list[int]) -> None:
    """The same fine-tuning for both, with the optimiser that trained the network: a cosine, bfloat16 autocast."""
    x, y = images("train")
    data, test = (x[:EPOCH], y[:EPOCH]), images("t10k")
    for target in targets:
        for seed in seeds:
            for variant in ("ours", *best_of(store, name, target)):
                for epochs in (1, 5):
                    cell = {"part": "tune", "network": name, "target": target, "variant": variant, "seed": seed}
                    if store.has(**cell, epochs=epochs):
                        continue
                    kept = variant if variant == "ours" else variant.replace("/", "-") + "-again"
                    model = torch.load(_kept(name, kept, target, seed), weights_only=False)
                    tuned = _tuned(model, data, epochs, seed, adam=NETWORKS[name].adam)
                    store.add(**cell, epochs=epochs, accuracy=accuracy(tuned, test))


def _tuned(model: nn.Module, data: tuple[Tensor, Tensor], epochs: int, seed: int, *, adam: bool) -> nn.Module:
    network = copy.deepcopy(model)
    for p in network.parameters():
        p.requires_grad_(True)
    optimizer = (
        torch.optim.AdamW(network.parameters(), 5e-4, weight_decay=0.05)
        if adam
        else torch.optim.SGD(network.parameters(), 0.02, momentum=0.9, nesterov=True, weight_decay=5e-4)
    )
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(data[0]) // 128))
    steps_of(network, data, epochs, optimizer, rates, seed)
    return network


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy at a budget, beside Torch-Pruning.")
    parser.add_argument("--part", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--only", nargs="*", choices=tuple(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--targets", nargs="*", type=float, default=list(TARGETS), help="of --part tune")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS), help="of --part ours and tune")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _networks(names: list[str]) -> Iterator[str]:
    for name in names:
        if (FOLDER / f"{name}.pt").exists():
            yield name
        else:
            print(f"{name} is not trained yet: python benchmarks/accuracy_networks.py --only {name}")


def main() -> None:
    """Measure what is missing."""
    args = _asked()
    torch.set_num_threads(args.threads)
    store = Store(CELLS)
    for name in _networks(args.only):
        for part in args.part:
            if part == "tune":
                tune(store, name, args.targets, args.seeds)
            elif part == "ours":
                ours(store, name, args.seeds)
            else:
                {"original": original, "peer-all": peer_all, "peer": peer}[part](store, name)


if __name__ == "__main__":
    main()
