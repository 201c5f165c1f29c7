"""The learning rate alone, for PyTorch loops that follow a schedule of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

import mlrs
from mlrs.adapters import TrialLoop
from mlrs.torch.copies import SaveTo
from mlrs.torch.hook import unwrapped
from mlrs.torch.optimizers import describe, set_rates
from mlrs.torch.ranks import together_of
from mlrs.torch.search.loop import LossFunction, StepFunction, TorchLoop, search


def suggest(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: LossFunction,
    batches: Iterable[Any],
    *,
    horizon: int,
    step_fn: StepFunction | None = None,
    scaler: torch.amp.GradScaler | None = None,
    also_save: Iterable[Any] = (),
    save_to: SaveTo = "device",
    advisor: mlrs.Advisor | str | None = None,
) -> mlrs.SearchResult:
    """Find a learning rate in a few short trials, and leave everything as it was, to the bit.

    In a distributed job, call it on every rank; the first one talks to the daemon.

    Args:
        model: as for `AdvisedLR.search`, like all arguments not named here.
        optimizer: the model's; its parameter groups keep the ratios of their learning rates.
        loss_fn: `loss_fn(model, batch)` returns the training loss.
        batches: training batches.
        horizon: the number of steps that the training will have.
        step_fn: makes a whole step of the training.
        scaler: the AMP scaler.
        also_save: what else steps change.
        save_to: where copies are kept.
        advisor: the daemon, connected or by its address. Default: as `mlrs.connect()` finds it.

    Returns:
        The learning rate of the group with the largest one, and the trials.

    Raises:
        MlrsError: as `mlrs.suggest`.
    """
    inner = unwrapped(optimizer)

    def make() -> TorchLoop:
        rates = [float(group["lr"]) for group in inner.param_groups]
        largest = max(rates)
        ratios = [rate / largest if largest else 1.0 for rate in rates]
        return TorchLoop(
            model,
            inner,
            loss_fn,
            batches,
            lambda learning_rate: set_rates(inner, learning_rate, ratios),
            step_fn=step_fn,
            scaler=scaler,
            also_save=also_save,
            save_to=save_to,
        )

    def decide(loop: TrialLoop, start: Callable[[], str]) -> mlrs.SearchResult:
        return mlrs.suggest(loop, horizon=horizon, advisor=advisor, start=start, **describe(inner))

    return search(make, together_of(None, None, distributed=True), decide)
