"""Validation losses that a training tells the daemon as it goes: when, and how they are measured."""

from __future__ import annotations

import torch

from mlrs_bench.methods.method import Training

TIMES = 20
"""How often a training is validated."""
CHUNK = 250
"""Examples that are judged at once."""


def validation_steps(steps: int) -> frozenset[int]:
    """Return the steps before which a training of so many is validated: evenly spaced, without step 0."""
    return frozenset(max(1, steps * number // (TIMES + 1)) for number in range(1, TIMES + 1))


@torch.no_grad()
def validation_loss(training: Training) -> float:
    """Return the mean loss on the validation examples, with the network as it is used.

    The network is left as it was, in training mode; random generators are, too.
    """
    network, examples = training.network, training.valid
    network.eval()  # dropout is off, and batch normalization keeps its statistics
    total = 0.0
    with torch.random.fork_rng(devices=[]):
        for begin in range(0, len(examples), CHUNK):
            chunk = examples[begin : begin + CHUNK]
            total += training.task.loss(network(chunk.inputs), chunk.targets).item() * len(chunk)
    network.train()
    return total / len(examples)
