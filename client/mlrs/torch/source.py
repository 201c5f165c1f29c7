"""The run, the learning rates and the parameters' names of a `MetaStep`."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from mlrs import Meta, Run
from mlrs.errors import ConfigMismatchError, InvalidArgumentError
from mlrs.torch.group import Group
from mlrs.torch.hook import unwrapped
from mlrs.torch.ranks import Together
from mlrs.torch.rates import OptimizerRates, Rates, SchedulerRates
from mlrs.torch.scheduler import AdvisedLR


def together_of(scheduler: object) -> Together | None:
    """Return the ranks of a scheduler, if it is distributed."""
    return scheduler._together if isinstance(scheduler, AdvisedLR) else None  # noqa: SLF001 # the package's own


def source_of(scheduler: object, optimizer: Optimizer, group: Group) -> tuple[Run | None, Rates]:
    """Return the run, if this process has it, and the learning rates."""
    if isinstance(scheduler, AdvisedLR):
        if scheduler.optimizer is not unwrapped(optimizer):
            raise InvalidArgumentError(
                "scheduler must be the AdvisedLR of this optimizer; it is another's", field="scheduler"
            )
        run = scheduler._run if group.is_first else None  # noqa: SLF001 # of the package's own scheduler
        return run, SchedulerRates(scheduler)
    if isinstance(scheduler, Run):
        return scheduler if group.is_first else None, OptimizerRates(optimizer)
    if scheduler is None and not group.is_first:
        return None, OptimizerRates(optimizer)
    raise InvalidArgumentError(
        "scheduler must be an AdvisedLR, or a run of mlrs.connect(...).run(...); is"
        f" {type(scheduler).__name__}",
        field="scheduler",
    )


def meta_of(run: Run | None) -> Meta:
    """Return a run's meta mode."""
    meta = Meta() if run is None else run.config.meta
    if meta is None:
        raise ConfigMismatchError(
            "the run is not in meta mode, which a run is from its creation on: open a new one with meta=True",
            field="meta",
        )
    return meta


def names_of(model: nn.Module, optimizer: Optimizer) -> dict[torch.Tensor, str]:
    """Return the model's name of each parameter of the optimizer."""
    names: dict[torch.Tensor, str] = {weight: name for name, weight in model.named_parameters()}
    ours = [weight for group in optimizer.param_groups for weight in group["params"]]
    foreign = sum(weight not in names for weight in ours)
    if foreign:
        raise InvalidArgumentError(
            f"optimizer has {foreign} parameters that are not the model's; pass one that holds all",
            field="optimizer",
        )
    return {weight: names[weight] for weight in ours}


def unscale(scaler: torch.amp.GradScaler, optimizer: Optimizer) -> None:
    """Unscale the gradients, unless the loop has, to clip them."""
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:
        if "already been called" not in str(error):
            raise
