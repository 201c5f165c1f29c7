"""Text with character models: which character comes next? The text is source code of Python's library.

The text differs between versions of Python a little, and results with it; a task's fingerprint tells.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlrs_bench.task import Examples, Splits, Task, share_correct

MODULES = ("argparse", "calendar", "csv", "difflib", "gettext", "imaplib", "mailbox", "optparse", "tarfile")
"""What is read, in this order."""
LENGTH = 200_000
"""Characters that are used."""
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""The characters with a class each; all others are one class, the last."""
CLASSES = len(ALPHABET) + 1
"""Characters and the one class."""
WINDOW = 32
"""Characters in an example."""
STRETCH = 50
"""Examples in a row that go to the same part: shuffled ones would be continued in one another."""


def char_lstm() -> Task:
    """Return an LSTM of one layer: 21,000 parameters."""
    return _task("char-lstm", _Recurrent, batch_size=16)


def char_transformer() -> Task:
    """Return a transformer of one block: 10,000 parameters."""
    return _task("char-transformer", _Transformer, batch_size=12)


def _task(name: str, network: type[nn.Module], *, batch_size: int) -> Task:
    return Task(
        name=name,
        load=_splits,
        network=network,
        horizon=500,
        batch_size=batch_size,
        num_classes=CLASSES,
        accuracy=share_correct,
    )


@cache
def _splits() -> Splits:
    return split_windows(_text(), WINDOW, STRETCH)


def split_windows(text: str, window: int, stretch: int) -> Splits:
    """Return windows of characters and of the ones that follow: of ten stretches, one each is held out.

    Args:
        text: any characters.
        window: characters in an example.
        stretch: examples in a row that go to the same part.
    """
    index = {character: number for number, character in enumerate(ALPHABET)}
    codes = torch.tensor([index.get(character, len(ALPHABET)) for character in text])
    whole = (len(codes) - 1) // (window * stretch) * (window * stretch)
    shape = (-1, stretch, window)
    inputs, targets = codes[:whole].reshape(shape), codes[1 : whole + 1].reshape(shape)
    phase = torch.arange(len(inputs)) % 10
    train, valid, test = (
        Examples(inputs[rows].flatten(0, 1), targets[rows].flatten(0, 1))
        for rows in (phase < 8, phase == 8, phase == 9)
    )
    return Splits(train=train, valid=valid, test=test)


def _text() -> str:
    parts = []
    for name in MODULES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            parts.append(Path(spec.origin).read_text(encoding="utf-8"))
    return "\n".join(parts)[:LENGTH]


class _Recurrent(nn.Module):
    """Embedding, LSTM, logits at every position: (n, WINDOW) codes to (n, WINDOW, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, 24)
        self.recurrent = nn.LSTM(24, 48, batch_first=True)
        self.head = nn.Linear(48, CLASSES)

    def forward(self, codes: Tensor) -> Tensor:
        hidden, _ = self.recurrent(self.embedding(codes))
        logits: Tensor = self.head(hidden)
        return logits


class _Transformer(nn.Module):
    """Token and position embeddings, a block, a head: (n, WINDOW) codes to logits (n, WINDOW, C)."""

    def __init__(self) -> None:
        super().__init__()
        width = 24
        self.embedding = nn.Embedding(CLASSES, width)
        self.positions = nn.Parameter(0.02 * torch.randn(WINDOW, width))
        self.block = _Block(width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, codes: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.block(self.embedding(codes) + self.positions)))
        return logits


class _Block(nn.Module):
    """Causal attention of two heads and a perceptron, each on normalized inputs, both residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.queries = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, values: Tensor) -> Tensor:
        rows, positions, width = values.shape
        mixed = self.queries(self.norms[0](values)).view(rows, positions, 3, 2, width // 2)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        values = values + self.mixed(heads.transpose(1, 2).flatten(2))
        out: Tensor = values + self.perceptron(self.norms[1](values))
        return out
