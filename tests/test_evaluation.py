"""Data sets open by their text, become a network's inputs, and are measured; what does not fit is refused."""

from __future__ import annotations

import gzip
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets import CIFAR10

from compress.core.errors import CompressError, DataError
from compress.core.types import Preprocessing
from compress.evaluation import agreement, calibration_batch, evaluate, open_data


def opened(spec: object, channels: int = 1, size: tuple[int, int] | None = None, **options: Any) -> Any:
    """Open `spec` without preprocessing unless given."""
    options.setdefault("preprocessing", None)
    return open_data(str(spec), channels=channels, size=size, **options)


def idx_files(folder: Path, *, packed: bool, count: int = 12, prefix: str = "t10k") -> None:
    """Write a small idx data set: image i is filled with i, its label is i % 10."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28).tobytes()
    head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (count, 28, 28))
    labels = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(i % 10 for i in range(count))
    for name, data in ((f"{prefix}-images-idx3-ubyte", head + images), (f"{prefix}-labels-idx1-ubyte", labels)):
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)


def picture(path: Path, colour: Any, mode: str = "RGB", size: tuple[int, int] = (20, 16)) -> None:
    """Write one image of one colour; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


class Logits(nn.Module):
    """Returns the same fixed rows of logits, chosen by each image's first value."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes) for images (N, C, H, W)."""
        return self.table[x[:, 0, 0, 0].round().long()]


def npz(path: Path, **arrays: Any) -> Path:
    """Write an .npz file."""
    np.savez(path, **arrays)
    return path


def numbered(path: Path, labels: list[int]) -> Path:
    """An .npz whose float image i is filled with i."""
    x = np.arange(len(labels), dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 1, 2, 2), np.float32)
    return npz(path, x=x, y=np.array(labels))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("inner", [".", "raw", "FashionMNIST/raw"])
def test_idx_files_are_found_packed_or_not(inner: str, packed: bool, tmp_path: Path) -> None:
    """Side by side as Debian has them, or in torchvision's layout: torchvision's reader reads them all."""
    idx_files(tmp_path / inner, packed=packed)
    data = opened(f"fashion-mnist:{tmp_path}", preprocessing=Preprocessing(mean=(0.5,), std=(0.25,), source="me"))
    image, label = data.dataset[11]
    assert (len(data), label, image.dtype, tuple(image.shape)) == (12, 1, torch.float32, (1, 28, 28))
    assert image[0, 0, 0].item() == pytest.approx((11 / 255 - 0.5) / 0.25)
    assert data.class_names[0] == "T-shirt/top"
    assert "mean [0.5]" in str(data.preprocessing)


def test_train_part_and_mnist(tmp_path: Path) -> None:
    """The training files are another part, and mnist is read alike."""
    idx_files(tmp_path, packed=True, count=5, prefix="train")
    assert len(opened(f"mnist:{tmp_path}", split="train")) == 5
    with pytest.raises(DataError, match="mnist is not in"):
        opened(f"mnist:{tmp_path}")


@pytest.mark.parametrize("name", ["fashion-mnist", "mnist", "cifar10", "cifar100"])
def test_missing_files_name_the_folder_and_the_option(name: str, tmp_path: Path) -> None:
    """Nothing is downloaded unasked."""
    with pytest.raises(DataError, match=rf"{name} is not in {tmp_path}[\s\S]*{name}:DIR[\s\S]*--download"):
        opened(f"{name}:{tmp_path}", channels=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-py"])
def test_cifar_is_read_from_its_folder_or_the_one_above(
    inner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colour images and the names of their classes come from torchvision's reader."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    row = {"data": np.full((2, 3072), 255, np.uint8), "labels": [3, 7]}
    (folder / "test_batch").write_bytes(pickle.dumps(row))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"c{i}" for i in range(10)]}))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": None})
    data = opened(f"cifar10:{tmp_path / inner}", channels=3, size=(32, 32), classes=10)
    assert (len(data), data.class_names[7], data.dataset[1][1]) == (2, "c7", 7)
    assert tuple(data.dataset[0][0].shape) == (3, 32, 32)


def test_damaged_idx_files(tmp_path: Path) -> None:
    """Cut-short files, and images without as many labels, are refused."""
    idx_files(tmp_path, packed=True)
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(bytes([0, 0, 8, 1]) + (3).to_bytes(4, "big") + bytes(3)))
    with pytest.raises(DataError, match="holds 12 images but 3 labels"):
        opened(f"mnist:{tmp_path}")
    labels.write_bytes(labels.read_bytes()[:20])
    with pytest.raises(DataError, match=r"labels-idx1-ubyte.gz is not a whole idx file"):
        opened(f"mnist:{tmp_path}")


def test_digits_parts_are_disjoint_and_noted() -> None:
    """Scikit-learn's digits are divided, and grey levels fill [0, 1]."""
    test, train = opened("digits"), opened("digits", split="train")
    assert len(test) + len(train) == 1797
    assert any("every 5th" in note for note in test.notes)
    assert max(float(test.dataset[i][0].max()) for i in range(20)) == 1.0


def test_grey_images_are_repeated_for_colour_networks_and_resized() -> None:
    """Grey to RGB is noted; colour to grey is refused (below); another size is reached by the known steps."""
    steps = Preprocessing(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), resize=256, crop=224, source="torchvision X")
    data = opened("digits", channels=3, size=(28, 28), preprocessing=steps)
    image = data.dataset[0][0]
    assert tuple(image.shape) == (3, 28, 28)
    assert torch.allclose(image[0] + 0.1, image[2] + 0.3)
    assert any("repeated to 3" in note for note in data.notes)
    assert (data.preprocessing.resize, data.preprocessing.crop) == (32, 28)
    assert "scaled from 224 to 28" in data.preprocessing.source
    plain = opened("digits", size=(12, 10))
    assert tuple(plain.dataset[0][0].shape) == (1, 12, 10)
    assert any("resized to 12 x 10" in note for note in plain.notes)


def test_image_folders(tmp_path: Path) -> None:
    """One folder a class gives labels in the order of names; a bare folder gives none; a part is found."""
    for split in ("train", "val"):
        picture(tmp_path / split / "cat" / "1.png", (255, 0, 0))
        picture(tmp_path / split / "dog" / "1.png", (0, 0, 255), size=(40, 40))
    data = opened(tmp_path, channels=3, size=(16, 16), classes=2)
    assert (data.class_names, data.labelled, len(data)) == (("cat", "dog"), True, 2)
    assert data.dataset[1][1] == 1
    assert data.dataset[0][0][:, 0, 0].tolist() == [1.0, 0.0, 0.0]
    bare = opened(tmp_path / "val" / "cat", channels=3)
    assert (bare.labelled, bare.dataset[0][1]) == (False, -1)
    with pytest.raises(DataError, match="has no labels"):
        evaluate(nn.Flatten(), bare)
    with pytest.raises(DataError, match="2 class folders, but the network has 3 outputs"):
        opened(tmp_path, channels=3, classes=3)
    with pytest.raises(DataError, match=r"coloured .* but the network reads 1 channel"):
        opened(tmp_path, channels=1)


def test_grey_folders_feed_grey_networks(tmp_path: Path) -> None:
    """Grey images stay grey for a network that reads one channel."""
    picture(tmp_path / "a" / "1.png", 51, mode="L")
    image = opened(tmp_path).dataset[0][0]
    assert tuple(image.shape) == (1, 16, 20)
    assert image[0, 0, 0].item() == pytest.approx(0.2)


def test_bad_folders(tmp_path: Path) -> None:
    """Folders without images, and files that are no images, are named."""
    with pytest.raises(DataError, match="holds no images in one folder a class"):
        opened(tmp_path, channels=3)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_text("no image")
    for channels in (1, 3):
        with pytest.raises(DataError, match=r"1\.png is not a readable image"):
            opened(tmp_path, channels=channels)


def test_npz_bytes_are_preprocessed_and_floats_are_not(tmp_path: Path) -> None:
    """A uint8 array is images (N, H, W, C); a float32 one is inputs (N, C, H, W) as they are."""
    steps = Preprocessing(mean=(0.5,), std=(0.5,), source="me")
    images = npz(tmp_path / "a.npz", x=np.full((3, 4, 5, 3), 255, np.uint8), y=np.array([0, 1, 2]))
    data = opened(images, channels=3, preprocessing=steps)
    assert data.dataset[2][1] == 2
    assert tuple(data.dataset[0][0].shape) == (3, 4, 5)
    assert data.dataset[0][0].unique().tolist() == [1.0]
    inputs = npz(tmp_path / "b.npz", x=np.full((3, 1, 4, 5), 7, np.float32))
    data = opened(inputs, size=(4, 5), preprocessing=steps)
    assert (data.preprocessing, data.labelled) == (None, False)
    assert data.dataset[0][0].unique().tolist() == [7.0]


BYTES = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"images": BYTES}, {}, r"has no array x \(it has images\)"),
        ({"x": BYTES.astype(np.int64)}, {}, "x is int64 of shape"),
        ({"x": BYTES, "y": np.array([1])}, {}, "for 2 images"),
        ({"x": BYTES, "y": np.array([0.5, 1.0])}, {}, "y is float64"),
        ({"x": BYTES, "y": np.array([0, -1])}, {}, "y is int64"),
        ({"x": BYTES[:0]}, {}, "holds no images"),
        ({"x": BYTES, "y": np.array([0, 9])}, {"classes": 9}, "labels up to 9, but the network has only 9 outputs"),
        ({"x": BYTES}, {"channels": 1}, "have 3 channels, but the network reads 1"),
        ({"x": BYTES}, {"channels": 4}, "have 3 channels, but the network reads 4"),
        ({"x": np.zeros((2, 3, 4, 4), np.float32)}, {"size": (5, 5)}, r"have shape \(3, 4, 4\), but the network reads"),
        ({"x": np.zeros((2, 1, 4, 4), np.float32)}, {}, r"have shape \(1, 4, 4\), but the network reads \(3,\)"),
        ({"x": BYTES}, {"preprocessing": Preprocessing(mean=(1.0, 2.0), std=(1.0, 1.0))}, "do not fit 3 channels"),
        ({"x": BYTES}, {"preprocessing": Preprocessing(mean=(1.0,), std=(0.0,))}, "not positive"),
        ({"x": BYTES}, {"preprocessing": Preprocessing(interpolation="cubist")}, "no interpolation 'cubist'"),
    ],
)
def test_npz_files_that_do_not_fit(
    arrays: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Wrong arrays, labels, channels, sizes and statistics are each one clear sentence."""
    with pytest.raises(DataError, match=message):
        opened(npz(tmp_path / "a.npz", **arrays), **{"channels": 3, **options})


def test_unreadable_specs(tmp_path: Path) -> None:
    """Typing errors list what can be written; damaged files are named."""
    with pytest.raises(DataError, match=r"does not exist and is no data set's name[\s\S]*fashion-mnist\[:DIR\]"):
        opened("fashion")
    (tmp_path / "a.npz").write_bytes(b"no")
    with pytest.raises(DataError, match=r"not a readable .npz"):
        opened(tmp_path / "a.npz")
    (tmp_path / "a.txt").write_text("no")
    with pytest.raises(DataError, match="none of the known kinds"):
        opened(tmp_path / "a.txt")


def test_factories(tmp_path: Path) -> None:
    """A user's function gives a Dataset; whatever else it gives is refused as a data error."""
    source = tmp_path / "data.py"
    source.write_text(
        "import torch\n"
        "from torch.utils.data import TensorDataset\n\n"
        "def good():\n    return TensorDataset(torch.ones(4, 1, 2, 2), torch.tensor([0, 1, 2, 3]))\n\n"
        "def number():\n    return 3\n\n"
        "def words():\n    return [('a', 0)]\n"
    )
    data = opened(f"{source}:good")
    assert (len(data), data.labelled, data.dataset[3][1]) == (4, True, 3)
    with pytest.raises(DataError, match="returned a int, not a Dataset"):
        opened(f"{source}:number")
    with pytest.raises(DataError, match="are of type str, not images"):
        opened(f"{source}:words")
    with pytest.raises(DataError, match="has no function 'nothing'"):
        opened(f"{source}:nothing")


def test_metrics_are_those_counted_by_hand(tmp_path: Path) -> None:
    """Top-1, top-5, per-class accuracy and loss of a table of logits; batches and order do not matter."""
    logits = torch.eye(6)[[0, 1, 2, 0]] * 3
    logits[3, 4] = -1.0  # the last image is of class 4, which comes last: not among the best five
    net = Logits(logits).train()
    data = opened(numbered(tmp_path / "a.npz", [0, 1, 0, 4]))
    seen: list[tuple[int, int]] = []
    result = evaluate(net, data, batch_size=3, progress=lambda done, total: seen.append((done, total)))
    expected = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0, 4])).item()
    assert (result.top1, result.top5, result.images) == (0.5, 0.75, 4)
    assert result.loss == pytest.approx(expected)
    assert result.per_class[:2] == (0.5, 1.0)
    assert result.per_class[4] == 0.0
    assert math.isnan(result.per_class[5])
    assert seen == [(3, 4), (4, 4)]
    assert net.training


def test_few_classes_and_limits(tmp_path: Path) -> None:
    """With fewer than five classes top-5 is top-all; a limit takes images evenly spaced."""
    data = opened(numbered(tmp_path / "a.npz", [0, 1, 0, 1]))
    net = Logits(torch.tensor([[1.0, 0.0]] * 4))
    assert evaluate(net, data).top5 == 1.0
    assert evaluate(net, data, limit=2).top1 == 1.0  # images 0 and 2
    assert evaluate(net, data, limit=9).images == 4
    with pytest.raises(DataError, match="cannot evaluate on 0 images"):
        evaluate(net, data, limit=0)


class Says(nn.Module):
    """Returns what it is told to."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        """Return the answer."""
        return self.answer


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Says({"logits": torch.ones(2, 3)}), "returns a dict, not one tensor of logits"),
        (Says(torch.ones(2, 3, 4)), r"shape \(2, 3, 4\), not \(images, classes\)"),
        (Says(torch.ones(2, 2)), r"has the label 2, but the network has 2 outputs \(0 to 1\)"),
        (Says(torch.full((2, 3), torch.nan)), "gives NaN or infinite outputs"),
        (nn.Conv2d(3, 4, 1), r"cannot be run on images of shape \(2, 1, 2, 2\)"),
    ],
)
def test_networks_that_are_no_classifiers_of_the_data(net: nn.Module, message: str, tmp_path: Path) -> None:
    """Outputs that are no logits for these labels are refused, not scored."""
    with pytest.raises(DataError, match=message):
        evaluate(net, opened(numbered(tmp_path / "a.npz", [0, 2])))


def test_agreement_is_the_fraction_of_equal_choices() -> None:
    """Two of three rows have their largest output at the same place."""
    first, second = torch.eye(3), torch.eye(3)[[0, 1, 1]]
    batch = torch.arange(3.0).reshape(3, 1, 1, 1)
    assert agreement(Logits(first), Logits(second), batch) == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="returns a list"):
        agreement(Logits(first), Says([1]), batch)


def test_calibration_batches_are_fixed_by_their_seed(tmp_path: Path) -> None:
    """The same seed draws the same images, from data without repetition, else noise."""
    data = opened(numbered(tmp_path / "a.npz", list(range(8))))
    batch = calibration_batch((1, 1, 2, 2), data, 5, seed=1)
    assert len(batch[:, 0, 0, 0].unique()) == 5
    assert torch.equal(batch, calibration_batch((1, 1, 2, 2), data, 5, seed=1))
    assert len(calibration_batch((1, 1, 2, 2), data, 99)) == 8
    noise = calibration_batch((1, 3, 4, 4), None, 6)
    assert tuple(noise.shape) == (6, 3, 4, 4)
    assert torch.equal(noise, calibration_batch((2, 3, 4, 4), None, 6))
    with pytest.raises(CompressError, match=r"an image of shape \(1, 2, 2\), but the network reads \(1, 4, 4\)"):
        calibration_batch((1, 1, 4, 4), data, 5)
