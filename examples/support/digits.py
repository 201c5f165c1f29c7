"""Scikit-learn's handwritten digits, and how the examples report: a JSON object a line."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Split = tuple[NDArray[np.float32], NDArray[np.int64]]


def load_split(seed: int) -> tuple[Split, Split]:
    """Return (images, labels) to train and to test on, 4 : 1; images (n, 64), mean 0, variance 1."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    images = ((images - images.mean()) / images.std()).astype(np.float32)[order]
    labels = labels.astype(np.int64)[order]
    cut = len(labels) * 4 // 5
    return (images[:cut], labels[:cut]), (images[cut:], labels[cut:])


def parse_arguments(description: str | None) -> Namespace:
    """Return the settings that both training examples have."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--address", help="the daemon, HOST:PORT; default: this user's own")
    parser.add_argument("--schedule", default="advised", choices=["advised", "constant", "cosine", "step"])
    parser.add_argument("--task", default="digits", help="what is trained, for --schedule advised")
    parser.add_argument("--run-id", help="the run's id; default: a new one of the task")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def report(**facts: Any) -> None:
    """Print facts as one JSON line."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()
