"""Two large tasks, run when they are named only: a training takes about six minutes on one core.

A transformer of 5.6 million parameters on the sources of Python's library, and a residual network of 2.8
million on CIFAR-10: ResNet-18 at half its widths, since at its own a step takes four times as long.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlrs_bench.task import Examples, Splits, Task, share_correct
from mlrs_bench.tasks import cifar10, text

WINDOW = 64
"""Characters in an example of text."""
STRETCH = 100
"""Examples in a row that go to the same part."""
JUDGED = {"valid": 500, "test": 1000}
"""Examples of text that are judged, of all that are held out: each takes a hundredth of a second."""
SIDE = 32
"""Pixels along a side of an image."""
COUNTS = {"train": 50_000, "test": 4_000}
"""Images that are used, of each part of the file."""
VALID = 1_000
"""How many of the training images, the last ones, are held out to tune."""


def text_transformer_5m() -> Task:
    """Return a transformer of seven blocks: 5,600,000 parameters."""
    return Task(
        name="text-transformer-5m",
        load=_text_splits,
        network=_Transformer,
        horizon=800,
        batch_size=16,
        num_classes=text.CLASSES,
        accuracy=share_correct,
        tuned_at={"adamw": (3.2e-4, 1e-3, 3.2e-3)},
    )


def cifar10_resnet18(file: Path, cache: Path) -> Task:
    """Return ResNet-18 for images of 32 by 32 pixels, at half its widths: 2,800,000 parameters."""
    return Task(
        name="cifar10-resnet18",
        load=lambda: _image_splits(file, cache),
        network=_resnet18,
        horizon=1000,
        batch_size=32,
        num_classes=cifar10.CLASSES,
        accuracy=share_correct,
        tuned_at={"sgd": (0.0032, 0.01, 0.032, 0.1)},
    )


@cache
def _text_splits() -> Splits:
    """Return windows of characters and of the ones that follow: of ten stretches, one each is held out.

    Of what is held out, `JUDGED` examples are used, which lie as far apart as they can.
    """
    parts = text.split_windows(_sources(), WINDOW, STRETCH)
    valid, test = (
        part[:: len(part) // count][:count]
        for part, count in zip((parts.valid, parts.test), JUDGED.values(), strict=True)
    )
    return Splits(train=parts.train, valid=valid, test=test)


def _sources() -> str:
    """Return the sources of the modules of Python's library that are a file each, by name: 4 MB."""
    paths = []
    for name in sorted(sys.stdlib_module_names):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None and spec.submodule_search_locations is None:
            paths.append(Path(spec.origin))
    return "\n".join(path.read_text(encoding="utf-8") for path in paths if path.suffix == ".py")


def _image_splits(file: Path, cache: Path) -> Splits:
    """Return 49,000, 1,000 and 4,000 images as bytes: as numbers they would take four times the memory."""
    arrays = cifar10.decoded(file, cache, side=SIDE, counts=COUNTS)
    train, test = (
        Examples(
            torch.from_numpy(arrays[f"{part}_images"]), torch.from_numpy(arrays[f"{part}_labels"]).long()
        )
        for part in COUNTS
    )
    return Splits(train=train[:-VALID], valid=train[-VALID:], test=test)


class _Transformer(nn.Module):
    """Token and position embeddings, seven blocks, a head: (n, WINDOW) codes to logits (n, WINDOW, C)."""

    def __init__(self, width: int = 256, blocks: int = 7) -> None:
        super().__init__()
        self.embedding = nn.Embedding(text.CLASSES, width)
        self.positions = nn.Parameter(0.02 * torch.randn(WINDOW, width))
        self.blocks = nn.Sequential(*[_Attending(width, 4) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, text.CLASSES)

    def forward(self, codes: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.blocks(self.embedding(codes) + self.positions)))
        return logits


class _Attending(nn.Module):
    """Causal attention of some heads and a perceptron, each on normalized inputs, both residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.queries = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, values: Tensor) -> Tensor:
        rows, positions, width = values.shape
        mixed = self.queries(self.norms[0](values))
        query, key, value = mixed.view(rows, positions, 3, self.heads, width // self.heads).permute(
            2, 0, 3, 1, 4
        )
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        values = values + self.mixed(attended.transpose(1, 2).flatten(2))
        out: Tensor = values + self.perceptron(self.norms[1](values))
        return out


class _Standardized(nn.Module):
    """(n, 3, SIDE, SIDE) bytes to colours in standard deviations from their means over CIFAR-10."""

    means: Tensor
    deviations: Tensor

    def __init__(self) -> None:
        super().__init__()
        means, deviations = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
        self.register_buffer("means", 255 * torch.tensor(means).view(3, 1, 1))
        self.register_buffer("deviations", 255 * torch.tensor(deviations).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.means) / self.deviations


class _Basic(nn.Module):
    """Two convolutions and a way around them, which is a convolution itself where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolved(inputs, outputs, 3, stride), nn.ReLU(), *_convolved(outputs, outputs, 3)
        )
        self.around = (
            nn.Identity() if inputs == outputs else nn.Sequential(*_convolved(inputs, outputs, 1, stride))
        )

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.body(maps) + self.around(maps))


def _convolved(inputs: int, outputs: int, side: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, side, stride=stride, padding=side // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


def _resnet18(width: int = 32) -> nn.Module:
    """Return four stages of two blocks each, of 1, 2, 4 and 8 times the width."""
    layers: list[nn.Module] = [_Standardized(), *_convolved(3, width, 3), nn.ReLU()]
    inputs = width
    for stage in range(4):
        outputs = width << stage
        layers += [_Basic(inputs, outputs, 1 if stage == 0 else 2), _Basic(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, cifar10.CLASSES))
