"""Validation losses in the benchmark: when they are measured, of what, and that they leave no trace."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

import mlrs
from mlrs_bench.methods import Training
from mlrs_bench.methods.validating import CHUNK, TIMES, validation_loss, validation_steps
from mlrs_bench.rules import RULES
from mlrs_bench.task import Examples, Task
from mlrs_bench.training import first_network, mean_loss


@pytest.mark.parametrize("steps", [21, 190, 200, 2400])
def test_steps_are_evenly_spaced(steps: int) -> None:
    """There are 20 of them after step 0 and before the end, as far apart as whole steps allow."""
    found = [0, *sorted(validation_steps(steps)), steps]
    assert len(found) == TIMES + 2
    gaps = {later - earlier for earlier, later in pairwise(found)}
    assert 1 <= min(gaps) <= max(gaps) <= min(gaps) + 1


@pytest.mark.parametrize("steps", [2, 10, 20])
def test_short_trainings_are_validated_at_most_once_a_step(steps: int) -> None:
    """With fewer steps than times, every step but the first is one."""
    assert validation_steps(steps) == set(range(1, steps))


class _Noisy(nn.Module):
    """Adds noise, also when it is only used."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + 1e-9 * torch.randn_like(values)


def test_a_validation_leaves_no_trace(long: Task, advisor: mlrs.Advisor) -> None:
    """It is the mean loss as the benchmark measures it; weights, statistics, mode and randomness stay."""
    task = replace(long, network=lambda: nn.Sequential(_Noisy(), long.network()))
    valid = long.load().valid
    valid = Examples(valid.inputs.repeat(7, 1), valid.targets.repeat(7))
    assert len(valid) % CHUNK
    network = first_network(task, 0).train()
    training = Training(
        task=task,
        rule=RULES["sgd"],
        network=network,
        valid=valid,
        batches=lambda: iter(()),
        seed=0,
        base_lr=None,
        start=1.0,
        run_id="none",
        advisor=advisor,
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    drawn = torch.get_rng_state()
    loss = validation_loss(training)
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert loss == pytest.approx(mean_loss(task, network, valid), rel=1e-6)
