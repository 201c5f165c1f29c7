"""A mixin for `Trainer`, and a function that makes an advised trainer of any one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeVar, Unpack, cast

import torch

import mlrs
from mlrs.adapters import RunOptions
from mlrs.errors import UsageError
from mlrs.torch import AdvisedLR
from mlrs.transformers import searching
from mlrs.transformers.events import Events
from mlrs.transformers.settings import Settings

T = TypeVar("T")
_logger = logging.getLogger("mlrs")


class AdvisedTrainerMixin:
    """A `Trainer` that sets the learning rate of every update to what a daemon advises for its loss.

        class MyTrainer(AdvisedTrainerMixin, Trainer): ...

        trainer = MyTrainer(model, arguments, train_dataset=dataset, task="gpt2-wikitext")

    `lr_scheduler_type` and the warmup of the training arguments are not used; `learning_rate` is where
    training begins if no daemon answers. The run is of the trainer's `max_steps`. It is finished when the
    training ends, and stays open when it is interrupted: `train(resume_from_checkpoint=True)` continues it.

    Args:
        task: the name of what is trained; see `Advisor.run`.
        advisor: as for `advised`.
        search: as for `advised`.
        monitor: as for `advised`.
        lagged: as for `advised`.
        signals: as for `advised`.
        run_options: those of `Advisor.run`, as a dict.
        arguments: all others are the trainer's.
    """

    args: Any
    state: Any
    accelerator: Any
    model: Any
    optimizer: Any
    lr_scheduler: Any
    callback_handler: Any
    _advice: Settings | None = None

    def __init__(
        self,
        *arguments: Any,
        task: str,
        advisor: mlrs.Advisor | None = None,
        search: bool = True,
        monitor: str | None = "eval_loss",
        lagged: bool = False,
        signals: bool = True,
        run_options: RunOptions | None = None,
        **others: Any,
    ) -> None:
        super().__init__(*arguments, **others)
        settings = Settings(
            task=task,
            advisor=advisor,
            search=search,
            monitor=monitor,
            lagged=lagged,
            signals=signals,
            options=run_options or {},
        )
        self._follow(settings)

    @property
    def run(self) -> mlrs.Run | None:
        """The run; `None` before the training begins, and on processes other than the first."""
        return self._run

    def _follow(self, settings: Settings) -> None:
        """Begin to follow advice, before a training."""
        if self.lr_scheduler is not None:
            raise UsageError(
                f"the trainer was given a {type(self.lr_scheduler).__name__}, which sets the learning rate"
                " that the daemon advises: pass optimizers=(optimizer, None), or do not use mlrs.transformers"
            )
        self._advice = settings
        self._run: mlrs.Run | None = None
        self._micro_losses: list[torch.Tensor] = []
        self._observed_step: int | None = None
        self._is_in_trial = False
        self._total_steps = 0
        cast("Any", self).add_callback(Events(self))

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> AdvisedLR:
        """Return the scheduler whose schedule is the advice.

        Raises:
            UsageError: under DeepSpeed, which updates before the loss is known here.
        """
        if cast("Any", self).is_deepspeed_enabled:
            raise UsageError(
                "DeepSpeed makes the update inside of the backward pass: use AdvisedLR of mlrs.torch in a"
                " loop of your own"
            )
        if self.args.lr_scheduler_type != "linear" or self.args.warmup_steps:
            _logger.warning(
                "lr_scheduler_type and the warmup are not used: the schedule is the daemon's advice, or the"
                " one that you name by the option policy="
            )
        if self.lr_scheduler is None:
            self._total_steps = num_training_steps
            # The run of a checkpoint, which is loaded next, has its horizon.
            self._begin(None if self.state.global_step else num_training_steps, optimizer)
        return cast("AdvisedLR", self.lr_scheduler)

    def _begin(self, horizon: int | None, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Begin a run of so many steps, or of a checkpoint."""
        assert self._advice is not None  # noqa: S101  # set by whoever made the trainer
        arguments = self.args
        batch_size = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        read = {} if horizon is None else {"horizon": horizon, "batch_size": batch_size}
        self._run = self._advice.run(**read) if arguments.process_index == 0 else None
        self._micro_losses, self._observed_step = [], None
        self.lr_scheduler = AdvisedLR(
            self.optimizer if optimizer is None else optimizer,
            self._run,
            lagged=self._advice.lagged,
            signals=self._advice.signals,
            rescue=self._advice.options.get("rescue") is not False,
            model=None if _is_mostly_frozen(self.model) else self.model,
        )
        self._created_lr_scheduler = True  # so that the next training makes another
        self.callback_handler.lr_scheduler = self.lr_scheduler

    def training_step(self, *arguments: Any, **others: Any) -> torch.Tensor:
        """Make the trainer's step with a batch; after the last one before an update, send their loss."""
        loss: torch.Tensor = cast("Any", super()).training_step(*arguments, **others)
        if not self._is_in_trial:
            self._micro_losses.append(loss.detach())
            if self.accelerator.sync_gradients:
                losses, self._micro_losses = self._micro_losses, []
                self.end_step()
                self._observed_step = self.lr_scheduler.last_epoch
                self.lr_scheduler.observe(losses[0] if len(losses) == 1 else torch.stack(losses).sum())
        return loss

    def begin_advice(self) -> None:
        """Search for the learning rate to begin with, unless a run continues."""
        assert self._advice is not None  # noqa: S101  # set by whoever made the trainer
        if self.state.global_step and not self.lr_scheduler.last_epoch:  # the checkpoint has no run
            self._begin(max(1, self._total_steps - self.state.global_step))
        if self._advice.search and not self.lr_scheduler.last_epoch:
            self._is_in_trial = True
            try:
                searching.search(self, self.lr_scheduler)
            finally:
                self._is_in_trial = False

    def end_step(self) -> None:
        """End the step that was observed, if the trainer did not because a `GradScaler` skipped it."""
        if self._observed_step is not None and self._observed_step == self.lr_scheduler.last_epoch:
            self.lr_scheduler.step()

    def tell_evaluation(self, metrics: Mapping[str, float]) -> None:
        """Tell the run the validation loss of an evaluation within a training."""
        assert self._advice is not None  # noqa: S101  # set by whoever made the trainer
        is_told = self._advice.monitor in metrics and cast("Any", self).is_in_train
        if is_told and self._advice.monitor is not None and isinstance(self.lr_scheduler, AdvisedLR):
            self.lr_scheduler.validate(metrics[self._advice.monitor])

    def end_advice(self) -> None:
        """Finish the run."""
        if isinstance(self.lr_scheduler, AdvisedLR):
            self.lr_scheduler.finish()


def _is_mostly_frozen(model: torch.nn.Module) -> bool:
    """Return whether a rescue is to put back the optimizer's weights alone, as in a training of adapters."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return sum(size for size, is_trained in sizes if is_trained) < sum(size for size, _ in sizes) / 2


def advised(
    trainer: T,
    task: str,
    *,
    advisor: mlrs.Advisor | None = None,
    search: bool = True,
    monitor: str | None = "eval_loss",
    lagged: bool = False,
    signals: bool = True,
    **options: Unpack[RunOptions],
) -> T:
    """Let a trainer follow advice: it becomes one of a subclass with `AdvisedTrainerMixin`.

    Args:
        trainer: a `Trainer` that has not begun to train, also of a subclass such as those of TRL.
        task: the name of what is trained; see `Advisor.run`.
        advisor: the daemon. Default: the one that `mlrs.run` finds.
        search: whether to search for the learning rate to begin with before the first batch, on the trainer's
            batches and `training_step`, where the memory of the task does not know it.
        monitor: the metric of evaluations that the run is told as its validation loss, for rescue and for the
            memory of the task. Lower must be better. `None`: none.
        lagged: as for `mlrs.torch.AdvisedLR`: never wait, and be one step late.
        signals: as for `mlrs.torch.AdvisedLR`.
        options: those of `Advisor.run`; `horizon`, `batch_size`, `optimizer` and `momentum` are read off the
            trainer where they are not given. With `rescue=False`, no copy of the training is kept.

    Returns:
        The same trainer.

    Raises:
        UsageError: the trainer was given a scheduler of its own.
    """
    if isinstance(trainer, AdvisedTrainerMixin):
        raise UsageError("the trainer follows advice already")
    kind: Any = type(trainer)
    settings = Settings(
        task=task,
        advisor=advisor,
        search=search,
        monitor=monitor,
        lagged=lagged,
        signals=signals,
        options=options,
    )
    before, wrapped = kind, cast("Any", trainer)
    wrapped.__class__ = type(f"Advised{kind.__name__}", (AdvisedTrainerMixin, kind), {})
    try:
        wrapped._follow(settings)  # noqa: SLF001  # of the mixin above
    except BaseException:
        wrapped.__class__ = before
        raise
    return trainer
