"""The plain attributes of objects, put back after a search."""

from __future__ import annotations

import copy
from collections import defaultdict, deque

import torch
from torch import nn

from mlrs.torch import Attributes
from mlrs.torch.attributes import MOST_PARTS


class Part(nn.Module):
    """A module with all kinds of attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("mean", torch.zeros(2))
        self.count = 0
        self.losses: list[torch.Tensor] = []
        self.sums = {"a": torch.zeros(1), "by name": defaultdict(list), "newest": deque([1.0], 3)}
        self.weights = [self.layer.weight]
        self.alias = [self.mean]
        self.function = len


def test_what_is_plain_is_put_back() -> None:
    """Counters, lists, tensors and nested dicts are as before; what was added is gone."""
    whole = nn.Sequential(Part(), Part())
    part = whole[1]
    attributes = Attributes([whole])
    saved = copy.deepcopy(attributes.state_dict())
    part.count += 1
    part.losses.append(torch.ones(1))
    part.sums["a"] += 1
    part.sums["by name"]["b"].append(3)
    part.sums["newest"].append(2.0)
    part.new = 5
    attributes.load_state_dict(copy.deepcopy(saved))
    assert (part.count, part.losses, part.sums["a"].item()) == (0, [], 0.0)
    assert part.sums["by name"] == {}
    assert part.sums["by name"]["c"] == []
    assert list(part.sums["newest"]) == [1.0]
    assert not hasattr(part, "new")


def test_the_model_and_other_objects_are_left_alone() -> None:
    """Parameters, buffers, modules, hooks and functions are no plain attributes, nor are lists of them."""
    part = Part()
    part.layer.register_forward_hook(lambda *_: None)
    (own, others), (layers, _) = Attributes([part]).state_dict()
    assert {"weights", "alias", "function"} <= set(others)
    assert set(own) == {"count", "losses", "sums"}
    assert set(layers) == {"in_features", "out_features"}


def test_objects_that_are_no_modules() -> None:
    """The attributes of any object may be saved; a long list is data, and stays as it is."""

    class Loop:
        def __init__(self) -> None:
            self.steps, self.model = 3, nn.Linear(1, 1)
            self.data = [0.0] * (MOST_PARTS + 1)

    loop = Loop()
    attributes = Attributes([loop])
    saved = copy.deepcopy(attributes.state_dict())
    loop.steps = 9
    loop.data.clear()
    attributes.load_state_dict(saved)
    assert loop.steps == 3
    assert saved == [({"steps": 3}, ["model", "data"])]
    assert loop.data == []
