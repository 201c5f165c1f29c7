"""Pictures like those of CIFAR-10, without a download: 10 classes, 3 channels, here 16 x 16."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images

SIZE = 16


class Scenes(NamedTuple):
    """Pictures and what they show."""

    images: torch.Tensor
    """(n, 3, 16, 16) float32, each channel of mean about 0."""
    labels: torch.Tensor
    """(n,) int64, the digit."""


def load_scenes(counts: tuple[int, int, int] = (8000, 2000, 2000)) -> tuple[Scenes, Scenes, Scenes]:
    """Return pictures to train, to validate and to test with; no digit's strokes are in two of the three.

    Each picture is one of scikit-learn's handwritten digits, moved by up to two pixels, in a random colour
    that lets the background through, on a random patch of one of scikit-learn's two photographs.
    """
    rng = np.random.default_rng(0)
    strokes, labels = load_digits(return_X_y=True)
    strokes = strokes.reshape(-1, 8, 8).repeat(2, axis=1).repeat(2, axis=2) / 16
    photographs = [photograph / 255 for photograph in load_sample_images().images]
    parts = np.split(rng.permutation(len(labels)), [1200, 1500])
    drawn = []
    for part, count in zip(parts, counts, strict=True):
        rows = rng.choice(part, count)
        images = np.stack([_scene(rng, photographs, strokes[row]) for row in rows]).transpose(0, 3, 1, 2)
        drawn.append(Scenes(torch.tensor(4 * images - 2, dtype=torch.float32), torch.tensor(labels[rows])))
    train, validation, test = drawn
    return train, validation, test


def _scene(rng: np.random.Generator, photographs: list[np.ndarray], strokes: np.ndarray) -> np.ndarray:
    photograph = photographs[rng.integers(len(photographs))]
    top, left = (rng.integers(side - SIZE) for side in photograph.shape[:2])
    background = photograph[top : top + SIZE, left : left + SIZE]
    ink = np.roll(strokes, rng.integers(-2, 3, 2), axis=(0, 1))[..., None] * rng.uniform(0.4, 0.9)
    return (1 - ink) * background + ink * rng.uniform(0, 1, 3)
