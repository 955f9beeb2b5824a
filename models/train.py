"""Train one of the networks in this folder, with an L1 penalty on the BatchNorm scales (network slimming).

    loss = cross-entropy(f(x), y) + s * sum |gamma|        sub-gradient of the penalty: s * sign(gamma)

Liu et al., arXiv:1708.06519. The scales of channels that the network can do without go towards zero, so that the
channels can be taken out later. Scales start at 0.5 and are left out of the weight decay. A channel without scale is
a constant, its shift beta; --shifts pulls these to zero in the same way, so that nothing is lost with the channel.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from make_images import read_split
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F


def build(arch: str, options: dict[str, Any]) -> nn.Module:
    """Call the factory that `arch`, "file.py:factory", names."""
    file, _, factory = arch.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise SystemExit(f"--arch {arch}: no Python file {file!r}; write models/resnet.py:resnet14")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, factory):
        raise SystemExit(f"--arch {arch}: {file} has no {factory!r}")
    network: nn.Module = getattr(module, factory)(**options)
    return network


def augment(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Crop every image of (N, C, H, W) at a random place after padding with zeros, and mirror every other one."""
    n, c, h, w = images.shape
    top, left = torch.randint(2 * pad + 1, (2, n, 1), generator=generator)
    rows, columns = top + torch.arange(h), left + torch.arange(w)
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    item, channel = torch.arange(n).view(n, 1, 1, 1), torch.arange(c).view(1, c, 1, 1)
    return F.pad(images, (pad,) * 4)[item, channel, rows.view(n, 1, h, 1), columns.view(n, 1, 1, w)]


def batches(images: Tensor, labels: Tensor, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield augmented uint8 batches in a random order; the incomplete last one is left out."""
    order = torch.randperm(len(images), generator=generator)
    for chosen in order[: len(order) // size * size].split(size):
        yield augment(images[chosen], 2, generator), labels[chosen]


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor, prepare: Callable[[Tensor], Tensor]) -> float:
    """Return the fraction of `images` that `network` classifies right, in float32."""
    network.eval()
    pairs = zip(images.split(500), labels.split(500), strict=True)
    right = sum(int((network(prepare(x)).argmax(1) == y).sum()) for x, y in pairs)
    return right / len(images)


def optimizer(network: nn.Module, lr: float, decay: float) -> torch.optim.SGD:
    """Return SGD with Nesterov momentum; only matrices and kernels decay."""
    kernels = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)


def save(checkpoint: dict[str, Any], path: Path) -> None:
    """Write `checkpoint` whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(checkpoint, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train a network on Fashion-MNIST with sparse BatchNorm scales.")
    parser.add_argument("--arch", default="models/resnet.py:resnet14", metavar="FILE.py:FACTORY")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="keyword of the factory")
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), metavar="DIR")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.1, help="highest learning rate")
    parser.add_argument("--decay", type=float, default=5e-4, help="weight decay of kernels and matrices")
    parser.add_argument("--sparsity", type=float, default=1e-3, help="s, the weight of the L1 penalty")
    parser.add_argument("--shifts", action="store_true", help="the penalty falls on the BatchNorm shifts as well")
    parser.add_argument("--start", type=Path, metavar="FILE.pt", help="begin with the weights of this checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="convolve in bfloat16; weights stay in float32")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.pt")
    args = parser.parse_args()
    if args.start and not args.start.is_file():
        parser.error(f"--start {args.start}: no such file")
    if not args.out.parent.is_dir():
        parser.error(f"--out {args.out}: the folder {args.out.parent} does not exist")
    if args.epochs < 1 or args.batch < 1:
        parser.error("--epochs and --batch must be at least 1")
    if not all("=" in option for option in args.option):
        parser.error(f"--option {args.option}: write NAME=VALUE")
    try:
        args.option = {k: json.loads(v) for k, _, v in (option.partition("=") for option in args.option)}
    except json.JSONDecodeError as error:
        parser.error(f"--option {args.option}: a value is not JSON: {error}")
    return args


def train(
    network: nn.Module,
    train_set: tuple[Tensor, Tensor],
    test_set: tuple[Tensor, Tensor],
    prepare: Callable[[Tensor], Tensor],
    args: argparse.Namespace,
) -> str:
    """Train `network` in place, test it after every epoch, and return the last epoch's line."""
    generator = torch.Generator().manual_seed(args.seed)
    scales = [m.weight for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    pulled = scales + [m.bias for m in network.modules() if isinstance(m, nn.BatchNorm2d) and args.shifts]
    sgd = optimizer(network, args.lr, args.decay)
    steps = args.epochs * (len(train_set[0]) // args.batch)
    rate = torch.optim.lr_scheduler.OneCycleLR(sgd, args.lr, steps, pct_start=0.1, cycle_momentum=False)
    began = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=steps)
        for epoch in range(args.epochs):
            network.train()
            for images, labels in batches(*train_set, args.batch, generator):
                with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                    loss = F.cross_entropy(network(prepare(images)).float(), labels)
                sgd.zero_grad()
                loss.backward()
                for vector in pulled:
                    if vector.grad is not None:
                        vector.grad.add_(vector.detach().sign(), alpha=args.sparsity)
                sgd.step()
                rate.step()
                progress.advance(bar)
            near_zero = [float((gamma.detach().abs() < 0.01).sum()) for gamma in scales]
            line = (
                f"epoch {epoch + 1}: {time.perf_counter() - began:.0f} s, loss {loss.item():.3f}, "
                f"test {accuracy(network, *test_set, prepare):.2%}, "
                f"scales below 0.01: {sum(near_zero) / max(sum(map(len, scales)), 1):.1%}"
            )
            progress.print(line)
    return line


def main() -> None:
    """Read, train, test, save."""
    args = arguments()
    torch.manual_seed(args.seed)
    train_set, test_set = (
        (torch.tensor(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels))
        for images, labels in (read_split(args.data, split) for split in ("train", "t10k"))
    )
    pixels = (train_set[0].double() / 255).transpose(0, 1).flatten(1)
    mean, std = pixels.mean(1).float(), pixels.std(1).float()

    def prepare(images: Tensor) -> Tensor:
        scaled = (images / 255 - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
        return scaled.contiguous(memory_format=torch.channels_last)

    network = build(args.arch, args.option).to(memory_format=torch.channels_last)
    if args.start:
        network.load_state_dict(torch.load(args.start, weights_only=True)["state_dict"])
    else:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, 0.5)
    line = train(network, train_set, test_set, prepare, args)
    checkpoint = {
        "state_dict": {name: tensor.contiguous() for name, tensor in network.state_dict().items()},
        "arch": args.arch,
        "arch_options": args.option,
        "input_shape": [1, *train_set[0].shape[1:]],
        "mean": mean.tolist(),
        "std": std.tolist(),
    }
    save(checkpoint, args.out)
    print(f"{args.out}: {line}")


if __name__ == "__main__":
    main()
