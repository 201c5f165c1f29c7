"""What a trainer that begins to fit says of itself: the optimizer, the number of steps, the batch size."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer

from mlrs.errors import InvalidArgumentError, UsageError
from mlrs.lightning.framework import Trainer


def optimizer_of(trainer: Trainer, index: int | None) -> Optimizer:
    """Return the optimizer whose learning rate is advised.

    Raises:
        InvalidArgumentError: there are several and `index` is `None`, or there is none with this index.
        UsageError: the module has a scheduler that sets the learning rates of this optimizer.
    """
    optimizers = trainer.optimizers
    if index is None and len(optimizers) > 1:
        raise InvalidArgumentError(
            f"optimizer_index: the module has {len(optimizers)} optimizers; add an AdvisedLR for each one"
            " that is to be advised, with a task of its own and optimizer_index=0, 1, ...",
            field="optimizer_index",
        )
    if not 0 <= (index or 0) < len(optimizers):
        raise InvalidArgumentError(
            f"optimizer_index is {index or 0}, and the module has {len(optimizers)} optimizers",
            field="optimizer_index",
        )
    optimizer = optimizers[index or 0]
    for config in trainer.lr_scheduler_configs:
        if getattr(config.scheduler, "optimizer", None) is optimizer:
            raise UsageError(
                f"configure_optimizers returns a {type(config.scheduler).__name__}, which sets the learning"
                " rate that AdvisedLR sets: return the optimizer alone, or leave out AdvisedLR. AdvisedLR can"
                " follow a schedule: AdvisedLR(task, policy='cosine')"
            )
    return optimizer


def horizon_of(trainer: Trainer) -> int | None:
    """Return the number of updates that each optimizer has before it; `None`: it is not known."""
    try:
        total = trainer.estimated_stepping_batches
    except Exception:  # noqa: BLE001  # of several kinds: accumulation that varies, no loader, no length
        return None
    if not math.isfinite(total):
        return None
    several = max(1, len(trainer.optimizers))  # all of whose steps global_step and max_steps count
    if total == trainer.max_steps:
        total /= several
    left = int(total) - trainer.global_step // several
    return left if left > 0 else None


def batch_size_of(trainer: Trainer) -> int | None:
    """Return the number of examples of an update, over all ranks; `None`: it is not known."""
    loader: Any = trainer.train_dataloader
    size = getattr(loader, "batch_size", None) or getattr(
        getattr(loader, "batch_sampler", None), "batch_size", None
    )
    if not isinstance(size, int):
        return None
    return size * trainer.accumulate_grad_batches * trainer.world_size
