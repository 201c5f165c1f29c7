"""What a task is: a base model as pure functions of its parameters, and examples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Params = dict[str, Tensor]
"""The parameters of a base model, by name."""
Batch = tuple[Tensor, Tensor]
"""Inputs and targets, a row an example."""


@dataclass(frozen=True)
class Examples:
    """Inputs and targets, whole in memory."""

    inputs: Tensor
    """(n, ...), what the network takes."""
    targets: Tensor
    """(n, ...), what the loss compares its outputs with."""

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.inputs)

    def __getitem__(self, rows: slice) -> Examples:
        """Return some of them, in order."""
        return Examples(self.inputs[rows], self.targets[rows])

    def take(self, rows: Tensor) -> Batch:
        """Return some examples as a batch."""
        return self.inputs[rows], self.targets[rows]

    def split(self, sizes: tuple[int, ...]) -> tuple[Examples, ...]:
        """Return consecutive parts of these sizes."""
        lengths = list(sizes)
        parts = zip(torch.split(self.inputs, lengths), torch.split(self.targets, lengths), strict=True)
        return tuple(Examples(inputs, targets) for inputs, targets in parts)

    def digest(self) -> str:
        """Return the SHA-256 of the examples, in hexadecimal."""
        digest = hashlib.sha256()
        for tensor in (self.inputs, self.targets):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class BaseTask:
    """A base model and its data.

    The functions are pure in the parameters, so that a step can be tried without being made.
    """

    num_classes: int
    """C, which gamma depends on."""
    init: Callable[[torch.Generator], Params]
    """Draws initial parameters."""
    loss: Callable[[Params, Batch], Tensor]
    """The mean loss of a batch, nats, as a scalar that is differentiable in the parameters."""
    train: Examples
    """What the base learner trains on."""
    held_out: Examples
    """What its virtual steps are judged on."""
    test: Examples
    """What no training sees."""
    batch_size: int
    """Examples in a batch, of either kind."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the training examples; a remainder is left out."""
        return len(self.train) // self.batch_size


def module_task(
    build: Callable[[], nn.Module],
    *,
    num_classes: int,
    parts: tuple[Examples, ...],
    batch_size: int,
) -> BaseTask:
    """Return a classification task around a torch module that has parameters but no buffers.

    Args:
        build: makes the module, with torch's default initialisation; maps inputs to logits (..., C).
        num_classes: C.
        parts: examples to train on, to hold out and to test on; targets are class indices (...).
        batch_size: examples in a batch.
    """
    module = build()

    def init(generator: torch.Generator) -> Params:
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return {name: tensor.detach() for name, tensor in build().named_parameters()}

    def loss(params: Params, batch: Batch) -> Tensor:
        inputs, targets = batch
        logits: Tensor = torch.func.functional_call(module, params, (inputs,))
        return nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())

    train, held_out, test = parts
    return BaseTask(
        num_classes=num_classes,
        init=init,
        loss=loss,
        train=train,
        held_out=held_out,
        test=test,
        batch_size=batch_size,
    )
