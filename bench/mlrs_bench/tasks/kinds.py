"""Four kinds of networks that no other task has: embeddings, sines, gated units, a mixer of patches."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from mlrs_bench.task import Examples, Splits, Task, share_correct, squared_error
from mlrs_bench.tasks.digits import CLASSES, PARTS
from mlrs_train.tasks.digits import shuffled_digits

USERS, ITEMS, RANK = 300, 200, 5
"""Who rates, what is rated, and how many tastes there are."""
SIDE = 64
"""Pixels along a side of the picture that is learnt by heart."""
LENGTH = 20
"""Numbers in a sequence, two of which are to be added."""


def ratings_factors() -> Task:
    """Return embeddings of users and items whose product is a rating: 4,500 parameters."""
    return Task(
        name="ratings-factors",
        load=_ratings,
        network=_Factors,
        horizon=800,
        batch_size=64,
        loss=squared_error,
        loss_name="mean squared error, variances",
    )


def coordinates_sine() -> Task:
    """Return a network of sines from coordinates to the brightness of a picture (SIREN): 8,600 parameters."""
    return Task(
        name="coordinates-sine",
        load=_picture,
        network=_Sines,
        horizon=1000,
        batch_size=128,
        loss=squared_error,
        loss_name="mean squared error, variances",
    )


def adding_gru() -> Task:
    """Return a gated recurrent network that adds the two marked numbers of a sequence: 2,000 parameters."""
    return Task(
        name="adding-gru",
        load=_sequences,
        network=_Gated,
        horizon=1000,
        batch_size=32,
        loss=squared_error,
        loss_name="mean squared error, variances",
    )


def digits_mixer() -> Task:
    """Return a mixer of patches with layer normalization on handwritten digits: 5,900 parameters."""
    return Task(
        name="digits-mixer",
        load=_digits,
        network=_Mixer,
        horizon=600,
        batch_size=32,
        num_classes=CLASSES,
        accuracy=share_correct,
    )


@cache
def _ratings() -> Splits:
    generator = torch.Generator().manual_seed(0)
    tastes = torch.randn(USERS, RANK, generator=generator), torch.randn(ITEMS, RANK, generator=generator)
    pairs = torch.randperm(USERS * ITEMS, generator=generator)[:14_000]
    users, items = pairs // ITEMS, pairs % ITEMS
    ratings = (tastes[0][users] * tastes[1][items]).sum(1) / RANK**0.5
    ratings = ratings + 0.3 * torch.randn(len(pairs), generator=generator)
    targets = ((ratings - ratings.mean()) / ratings.std())[:, None]
    return Splits.of(Examples(torch.stack([users, items], 1), targets), 10_000, 2_000, 2_000)


class _Factors(nn.Module):
    """(n, 2) numbers of users and items to (n, 1) ratings."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(USERS, 8), nn.Embedding(ITEMS, 8)
        self.user_bias, self.item_bias = nn.Embedding(USERS, 1), nn.Embedding(ITEMS, 1)
        for table in (self.users, self.items, self.user_bias, self.item_bias):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, pairs: Tensor) -> Tensor:
        users, items = pairs[:, 0], pairs[:, 1]
        product = (self.users(users) * self.items(items)).sum(1, keepdim=True)
        return torch.Tensor(product + self.user_bias(users) + self.item_bias(items))


@cache
def _picture() -> Splits:
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(-1.0, 1.0, SIDE)
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    picture = (torch.hypot(x - 0.2, y + 0.3) < 0.5).float() + torch.sin(9.0 * x + 4.0 * y) * (y > 0)
    for _ in range(8):
        center, width = (
            2.0 * torch.rand(2, generator=generator) - 1.0,
            0.08 + 0.2 * torch.rand(1, generator=generator).item(),
        )
        picture = picture + torch.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * width**2))
    order = torch.randperm(SIDE * SIDE, generator=generator)
    coordinates = torch.stack([x, y], -1).reshape(-1, 2)[order]
    targets = ((picture - picture.mean()) / picture.std()).reshape(-1, 1)[order]
    return Splits.of(Examples(coordinates, targets), 2_560, 768, 768)


class _Sines(nn.Module):
    """(n, 2) coordinates to (n, 1); initialised as Sitzmann et al. 2020 (arXiv 2006.09661, section 3.2)."""

    def __init__(self, width: int = 64, frequency: float = 10.0) -> None:
        super().__init__()
        self.frequency = frequency
        layers = [nn.Linear(2, width), nn.Linear(width, width), nn.Linear(width, width)]
        self.layers, self.last = nn.ModuleList(layers), nn.Linear(width, 1)
        for index, layer in enumerate(layers):
            fan = layer.in_features
            bound = 1.0 / fan if index == 0 else (6.0 / fan) ** 0.5 / frequency
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, coordinates: Tensor) -> Tensor:
        for layer in self.layers:
            coordinates = torch.sin(self.frequency * layer(coordinates))
        return torch.Tensor(self.last(coordinates))


@cache
def _sequences() -> Splits:
    generator = torch.Generator().manual_seed(0)
    count = 8_000
    numbers = torch.rand(count, LENGTH, generator=generator)
    marks = torch.zeros(count, LENGTH)
    first = torch.randint(LENGTH // 2, (count,), generator=generator)
    second = LENGTH // 2 + torch.randint(LENGTH // 2, (count,), generator=generator)
    rows = torch.arange(count)
    marks[rows, first] = marks[rows, second] = 1.0
    totals = (numbers * marks).sum(1, keepdim=True)
    targets = (totals - totals.mean()) / totals.std()
    return Splits.of(Examples(torch.stack([numbers, marks], -1), targets), 6_000, 1_000, 1_000)


class _Gated(nn.Module):
    """(n, LENGTH, 2) numbers and marks to (n, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.gated = nn.GRU(2, 24, batch_first=True)
        self.last = nn.Linear(24, 1)

    def forward(self, sequences: Tensor) -> Tensor:
        states, _ = self.gated(sequences)
        return torch.Tensor(self.last(states[:, -1]))


@cache
def _digits() -> Splits:
    return Splits.of(shuffled_digits(torch.Generator().manual_seed(0)), *PARTS)


class _MixerBlock(nn.Module):
    """(n, patches, width) to the same: a perceptron across patches, then one across features."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.across = nn.Sequential(nn.Linear(patches, 32), nn.GELU(), nn.Linear(32, patches))
        self.within = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, features: Tensor) -> Tensor:
        features = features + self.across(self.norms[0](features).transpose(1, 2)).transpose(1, 2)
        return torch.Tensor(features + self.within(self.norms[1](features)))


class _Mixer(nn.Module):
    """(n, 1, 8, 8) images to (n, CLASSES), by 16 patches of 2 by 2 pixels (MLP-Mixer, arXiv 2105.01601)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, stride=2)
        self.blocks = nn.Sequential(_MixerBlock(16, width), _MixerBlock(16, width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embed(images).flatten(2).transpose(1, 2)
        return torch.Tensor(self.head(self.norm(self.blocks(patches)).mean(1)))
