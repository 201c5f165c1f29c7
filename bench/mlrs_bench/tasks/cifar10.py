"""CIFAR-10 from a file of JPEG images, and two tasks at 16 by 16 pixels.

The file is an .npz: `train_jpeg`, the images' bytes end to end; `train_offsets`, where each begins, and
the last one ends; `train_labels`; and the same three of `test`.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mlrs_bench.errors import DataFileError
from mlrs_bench.task import Examples, Splits, Task, share_correct

SIDE = 16
"""Pixels along a side."""
COUNTS = {"train": 12_000, "test": 4_000}
"""Images that are used, of each part of the file."""
VALID = 2_000
"""How many of the training images, the last ones, are held out to tune."""
CLASSES = 10
"""Kinds of things."""
FORMAT = 1
"""Changed when images are decoded differently."""


def cifar10_cnn_bn(file: Path, cache: Path) -> Task:
    """Return a CNN of three convolutions with batch normalization: 20,000 parameters."""
    return Task(
        name="cifar10-cnn-bn",
        load=lambda: _splits(file, cache),
        network=lambda: nn.Sequential(
            *_convolution(3, 16),
            nn.MaxPool2d(2),
            *_convolution(16, 32),
            nn.MaxPool2d(2),
            *_convolution(32, 32),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, CLASSES),
        ),
        horizon=1000,
        batch_size=32,
        num_classes=CLASSES,
        accuracy=share_correct,
    )


def cifar10_resnet(file: Path, cache: Path) -> Task:
    """Return a residual network of three blocks: 78,000 parameters."""
    return Task(
        name="cifar10-resnet",
        load=lambda: _splits(file, cache),
        network=lambda: nn.Sequential(
            *_convolution(3, 16, 2),
            _Block(16, 16, 1),
            _Block(16, 32, 2),
            _Block(32, 64, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, CLASSES),
        ),
        horizon=600,
        batch_size=32,
        num_classes=CLASSES,
        accuracy=share_correct,
    )


def _convolution(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


class _Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.body = nn.Sequential(*_convolution(inputs, outputs, stride), second, nn.BatchNorm2d(outputs))
        self.around = (
            nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        )

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.body(maps) + self.around(maps))


def _splits(file: Path, cache: Path) -> Splits:
    """Return 10,000, 2,000 and 4,000 images, every colour in standard deviations from its mean."""
    arrays = decoded(file, cache, side=SIDE, counts=COUNTS)
    images = {part: torch.from_numpy(arrays[f"{part}_images"]).float() for part in COUNTS}
    labels = {part: torch.from_numpy(arrays[f"{part}_labels"]).long() for part in COUNTS}
    seen = images["train"][:-VALID]
    mean, deviation = seen.mean((0, 2, 3), keepdim=True), seen.std((0, 2, 3), keepdim=True)
    train, test = (Examples((images[part] - mean) / deviation, labels[part]) for part in COUNTS)
    return Splits(train=train[:-VALID], valid=train[-VALID:], test=test)


def decoded(file: Path, cache: Path, *, side: int, counts: Mapping[str, int]) -> dict[str, npt.NDArray[Any]]:
    """Return the decoded images, from the cache if they are there.

    Args:
        file: the file.
        cache: the folder for decoded images.
        side: pixels along a side of an image.
        counts: how many images of each part of the file, `train` and `test`.

    Returns:
        By part: `PART_images`, (n, 3, side, side) uint8, and `PART_labels`, (n,).

    Raises:
        DataFileError: the file is not as this module says.
    """
    try:
        with file.open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        kept = cache / f"cifar10-{side}-{FORMAT}-{digest[:16]}.npz"
        if not kept.exists():
            with file.open("rb") as data, np.load(data) as archive:
                arrays: dict[str, npt.NDArray[Any]] = {}
                for part, count in counts.items():
                    arrays |= _decode(archive, part, side, count)
            _write(kept, arrays)
        with np.load(kept) as archive:
            return dict(archive)
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise DataFileError(f"{file}: cannot be read as CIFAR-10: {error}") from error


def _decode(archive: Any, part: str, side: int, count: int) -> dict[str, npt.NDArray[Any]]:
    """Return the first images of a part, (count, 3, side, side) uint8, and their labels, (count,)."""
    from PIL import Image

    data, offsets = archive[f"{part}_jpeg"], archive[f"{part}_offsets"]
    images = []
    for index in range(count):
        encoded = data[offsets[index] : offsets[index + 1]].tobytes()
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        images.append(np.asarray(image.resize((side, side), Image.Resampling.BOX)).transpose(2, 0, 1))
    labels = archive[f"{part}_labels"][:count]
    return {f"{part}_images": np.stack(images), f"{part}_labels": labels}


def _write(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write arrays so that other processes see all of the file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.{os.getpid()}.npz")
    np.savez(part, allow_pickle=False, **arrays)
    part.replace(path)
