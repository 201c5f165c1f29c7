"""A callback whose schedule is a daemon's advice. `mlrs.lightning` shows how it is used."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Unpack, cast

import torch
from torch.optim import LBFGS, Optimizer

import mlrs
from mlrs.adapters import RunOptions
from mlrs.lightning import searching
from mlrs.lightning.fitting import batch_size_of, horizon_of, optimizer_of
from mlrs.lightning.framework import Callback, LightningModule, Trainer
from mlrs.lightning.losses import Losses
from mlrs.torch import AdvisedLR as Scheduler

_logger = logging.getLogger("mlrs")


class AdvisedLR(Callback):
    """Sets the learning rate of every update to what a daemon advises for the training loss of that update.

    The parameter group with the largest learning rate gets the advice, the others keep their ratio to it. The
    run is of `trainer.estimated_stepping_batches` steps, unless `horizon` is given. It is finished when the
    training ends, and stays open when the training is interrupted: a fit from a checkpoint continues it.

    Args:
        task: the name of what is trained; see `Advisor.run`.
        advisor: the daemon. Default: the one that `mlrs.run` finds.
        optimizer_index: of several optimizers, the one that is advised. Each one has an `AdvisedLR` of its
            own, and a task; those without keep their learning rates.
        search: whether to search for the learning rate to begin with before the first batch, on the trainer's
            batches and `training_step`, where the memory of the task does not know it.
        monitor: the logged validation loss that the run is told, for rescue and for the memory of the task.
            Lower must be better. `None`: none. If nothing of this name is logged, none is told.
        log_as: the name under which the learning rate is logged, at the step whose update it was used in;
            with an `optimizer_index`, that is appended. `None`: it is not logged.
        lagged: as for `mlrs.torch.AdvisedLR`: never wait, and be one step late.
        signals: as for `mlrs.torch.AdvisedLR`.
        options: those of `Advisor.run`; `horizon`, `batch_size`, `optimizer` and `momentum` are read off the
            trainer where they are not given. With `rescue=False`, no copy of the training is kept.

    Raises:
        InvalidArgumentError: when the fit begins: there are several optimizers and no `optimizer_index`.
        UsageError: when the fit begins: the module has a learning-rate scheduler for the optimizer.
        MlrsError: as `mlrs.torch.AdvisedLR`.
    """

    def __init__(
        self,
        task: str,
        *,
        advisor: mlrs.Advisor | None = None,
        optimizer_index: int | None = None,
        search: bool = True,
        monitor: str | None = "val_loss",
        log_as: str | None = "lr",
        lagged: bool = False,
        signals: bool = True,
        **options: Unpack[RunOptions],
    ) -> None:
        super().__init__()
        self._task, self._advisor, self._options = task, advisor, options
        self._optimizer_index, self._is_to_search = optimizer_index, search
        self._monitor = monitor
        self._log_as = log_as if log_as is None or optimizer_index is None else f"{log_as}-{optimizer_index}"
        self._lagged, self._signals = lagged, signals
        self._saved: dict[str, Any] | None = None  # a state to continue from
        self._run: mlrs.Run | None = None  # on the first rank
        self._scheduler: Scheduler | None = None
        self._losses = Losses()
        self._is_in_fit = True  # and not in a test or a prediction
        self._is_to_begin = False  # whether no batch of a new run was seen
        self._is_observed = False  # whether the loss of the present step was
        self._is_updating = False  # whether its update has begun, and its end was not noticed yet
        self._has_warned = False

    @property
    def run(self) -> mlrs.Run | None:
        """The run; `None` before the fit begins, and on ranks other than the first."""
        return self._run

    @property
    def state_key(self) -> str:
        """The name of this callback in checkpoints; one for each optimizer."""
        return f"mlrs.lightning.AdvisedLR{self._optimizer_index or 0}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002  # Lightning's
        """Note whether a checkpoint that is loaded next is one to continue from."""
        self._saved = None
        self._is_in_fit = stage == "fit"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a run for the optimizer, or continue that of the checkpoint."""
        optimizer = optimizer_of(trainer, self._optimizer_index)
        saved, self._saved = self._saved, None
        self._losses, self._is_observed, self._is_updating = Losses(), False, False
        self._run = self._opened(trainer, is_known=saved is not None) if trainer.is_global_zero else None
        self._scheduler = Scheduler(
            optimizer,
            self._run,
            lagged=self._lagged,
            signals=self._signals,
            rescue=self._options.get("rescue") is not False,
            model=pl_module if len(trainer.optimizers) == 1 else None,  # others' weights are not ours
        )
        self._is_to_begin = saved is None
        if saved is not None:
            self._scheduler.load_state_dict(saved)

    def _opened(self, trainer: Trainer, *, is_known: bool) -> mlrs.Run:
        """Return a run, which its first step opens. `is_known`: that of a checkpoint, which has a config."""
        options: RunOptions = {**self._options}
        if not is_known:
            read = {"horizon": horizon_of(trainer), "batch_size": batch_size_of(trainer)}
            options = cast("RunOptions", {**read, **options})
        return mlrs.run(self._task, advisor=self._advisor, **options)

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ARG002  # Lightning's signature
        batch_idx: int,  # noqa: ARG002  # Lightning's signature
    ) -> None:
        """Search before the first batch, when the module's own hooks have begun training and epoch."""
        if self._is_to_begin and self._is_to_search:
            searching.search(trainer, pl_module, self._advised)
        self._is_to_begin = False

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Send the loss of an update before its last backward pass, which hides the round trip."""
        if not self._is_repeated:
            self._end_step()
        self._losses.add(trainer, loss)
        if self._losses.are_complete(trainer, pl_module):
            self._observe(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Send the loss of this update if it was not sent yet."""
        if optimizer is self._advised.optimizer:
            if not self._is_repeated:
                self._end_step()
            if not self._is_observed:
                self._observe(trainer, pl_module)
            self._is_updating = True
        self._losses.spend()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: torch.Tensor | Mapping[str, Any] | None,  # noqa: ARG002  # Lightning's signature
        batch: Any,  # noqa: ARG002  # Lightning's signature
        batch_idx: int,  # noqa: ARG002  # Lightning's signature
    ) -> None:
        """End the step, and log its learning rate beside what `training_step` logs."""
        if self._end_step() and self._log_as is not None and not trainer.barebones:
            rates = [float(rate) for rate in self._advised.get_last_lr()]
            pl_module.log(self._log_as, max(rates), on_step=True, on_epoch=False, batch_size=1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  # Lightning's
        """Tell the run the validation loss, if one was logged."""
        if not self._is_in_fit or trainer.sanity_checking or self._scheduler is None or self._monitor is None:
            return
        if (loss := trainer.callback_metrics.get(self._monitor)) is not None:
            self._scheduler.validate(loss)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  # Lightning's
        """Finish the run."""
        if self._scheduler is not None:
            self._scheduler.finish()

    def state_dict(self) -> dict[str, Any]:
        """Return the run's id, the next step and the newest learning rate, as plain values."""
        if self._scheduler is None:
            return self._saved or {}
        self._end_step()
        return self._scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state when the fit begins; a test of a checkpoint continues nothing."""
        if self._is_in_fit:
            self._saved = state_dict

    @property
    def _advised(self) -> Scheduler:
        assert self._scheduler is not None  # noqa: S101  # made when the fit began
        return self._scheduler

    @property
    def _is_repeated(self) -> bool:
        """Whether the optimizer computes the loss of a step several times."""
        return isinstance(self._advised.optimizer, LBFGS)

    def _observe(self, trainer: Trainer, module: LightningModule) -> None:
        loss = self._losses.total(trainer, module)
        if loss is not None:
            self._advised.observe(loss)
            self._is_observed = True
        elif not module.automatic_optimization and not self._has_warned:
            self._has_warned = True
            _logger.warning(
                "an update of the optimizer has no loss, and keeps the last learning rate: in manual"
                " optimization, backpropagate with self.manual_backward(loss)"
            )

    def _end_step(self) -> bool:
        """End the step whose update was made, if there is one with a loss; return whether there was."""
        is_ended = self._is_updating and self._is_observed
        if is_ended:
            self._advised.step()
            self._is_observed = False
        self._is_updating = False
        return is_ended
