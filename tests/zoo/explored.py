"""The network that the tests of exploring commands look at, and the files of a user who has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from typer.testing import CliRunner, Result

from compress.cli import app
from compress.evaluation.data import Data, open_data

SOURCE = '''
"""Two residual blocks and a chain, as a user would hand them over."""
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.conv1 = nn.Conv2d(n, n, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n)
        self.conv2 = nn.Conv2d(n, n, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x
        return self.relu(y)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True))
        self.one = Block(12)
        self.two = Block(12)
        self.conv = nn.Conv2d(12, 10, 3, padding=1)
        self.head = nn.Linear(10 * 16, 5)

    def forward(self, x):
        x = self.two(self.one(self.stem(x)))
        x = torch.relu(self.conv(x))
        return self.head(nn.functional.avg_pool2d(x, 2).flatten(1))


def build():
    return Small()
'''


def network() -> nn.Module:
    """The network of SOURCE with weights under which every channel matters."""
    torch.manual_seed(1)
    names: dict[str, Any] = {}
    exec(SOURCE, names)
    made: nn.Module = names["build"]()
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
            nn.init.uniform_(part.running_mean, -0.3, 0.3)
    return made.eval()


def files_in(folder: Path) -> Path:
    """Write net.py, weights net.pt and 300 images into the folder, images.npz with labels and bare.npz without."""
    (folder / "net.py").write_text(SOURCE, encoding="utf-8")
    torch.save(network().state_dict(), folder / "net.pt")
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), dtype=np.uint8)
    np.savez(folder / "images.npz", x=images, y=np.arange(300) % 5)
    np.savez(folder / "bare.npz", x=images)
    return folder


def images(name: str = "images.npz") -> Data:
    """Labelled images in the current folder."""
    return open_data(name, preprocessing=None, channels=1, size=(8, 8))


NET = ("net.pt", "--arch", "net.py:build", "--input-shape", "1,1,8,8")


def run(command: str, *arguments: object) -> Result:
    """Run a command of the program on the network."""
    return CliRunner().invoke(app, [command, *map(str, NET), *map(str, arguments)])
