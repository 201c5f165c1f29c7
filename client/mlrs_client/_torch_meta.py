"""Meta mode for PyTorch: an optimizer's step that now and then has the run's network learn."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from mlrs_client import _meta_arguments as check
from mlrs_client._exceptions import (
    ConfigMismatchError,
    InvalidArgumentError,
    MlrsError,
    UnavailableError,
    UsageError,
)
from mlrs_client._meta_types import Adaptation, Meta, MetaOrder
from mlrs_client._run import Run
from mlrs_client._torch_alignment import ValidationLoss, aligned, inner
from mlrs_client._torch_directions import check_gradient, directions, is_known
from mlrs_client._torch_group import Group
from mlrs_client._torch_ranks import Together
from mlrs_client._torch_rates import OptimizerRates, Rates, SchedulerRates
from mlrs_client._values import real

if TYPE_CHECKING:
    from mlrs_client.torch import AdvisedLR

AHEAD = 0.5
"""How far along the step the validation gradient is taken: its slope there is the mean one over the step."""
DEFAULT_EVERY = 5
"""Steps from one meta update to the next, where the run does not say."""
_logger = logging.getLogger("mlrs_client")


class MetaStep:
    """Takes the optimizer's steps, and makes the meta update of every so many.

        run = advisor.run("resnet18", meta=True)
        scheduler = AdvisedLR(optimizer, run)
        meta = MetaStep(model, loss_fn, optimizer, scheduler)
        for batch in loader:
            optimizer.zero_grad()
            loss = loss_fn(model, batch)
            scheduler.observe(loss)
            loss.backward()
            meta.step(lambda: next(validation_batches))   # in place of optimizer.step()
            scheduler.step()

    In `before_step`, the paper's order, d is where SGD, Adam or AdamW would go per unit of learning rate, the
    validation gradient is taken at w - ahead * lr * d, and the real step is made with the learning rate that
    the update gives. In `after_step`, and for any other optimizer, the real step is made first, d is what it
    did, and the update tells from the next step on. Neither changes the model's buffers or gradients, nor the
    optimizer's state.

    Attributes:
        every: steps from one update to the next.
        updates: how many this object has made.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: ValidationLoss,
        optimizer: Optimizer,
        scheduler: AdvisedLR | Run | None,
        *,
        every: int | None = None,
        ahead: float = AHEAD,
    ) -> None:
        """Begin; in a distributed job, in every process at once.

        Args:
            model: the model; under `DistributedDataParallel` alignments are means over the processes.
            loss_fn: `loss_fn(model, batch)` returns the validation loss, a scalar; it must call the model
                that it is given. Put `torch.autocast` into it where training has it.
            optimizer: that of the model's parameters.
            scheduler: the `AdvisedLR` of the optimizer, or, where the loop itself sets learning rates, the
                run. `None`: this is not the first process of a distributed job.
            every: steps from one update to the next. Default: the run's.
            ahead: how far along the step the validation gradient is taken, 0.5 to 1. At 1, where it leads, as
                in the paper, learning rates rise while more of the same step would help; halfway, the
                default, while the step itself does. That is less short-sighted: docs/quality/meta.md.

        Raises:
            ConfigMismatchError: the run is not in meta mode.
            InvalidArgumentError: an argument is wrong; the error names it.
        """
        self._model, self._loss_fn, self._optimizer = inner(model), loss_fn, optimizer
        self._group = Group(model, _together_of(scheduler))
        self._run, self._rates = _source(scheduler, optimizer, self._group)
        meta = _meta_of(self._run)
        if every is None:
            every = DEFAULT_EVERY if meta.every is None else meta.every
        every = check.every(every)
        self._ahead = real("ahead", ahead, least=0.5, most=1.0)
        since = 0 if self._run is None else self._run.resume_step % every
        is_before = is_known(optimizer) and meta.order != MetaOrder.AFTER_STEP
        agreed = self._group.from_first([float(every), float(since), float(is_before)])
        self.every, self._since = int(agreed[0] or 1), int(agreed[1] or 0)
        self._is_before = bool(agreed[2])
        self._names = _names(self._model, optimizer)
        self._last_step = -1
        self.updates = 0

    @property
    def is_due(self) -> bool:
        """Whether the next `step` makes an update, and needs a validation batch."""
        return self._since + 1 >= self.every

    def step(
        self,
        batch: Any = None,
        *,
        closure: Callable[[], Any] | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> Adaptation | None:
        """Take the optimizer's step, and make the meta update if one is due.

        Args:
            batch: what `loss_fn` takes, or a function that returns it; used only if `is_due`.
            closure: for optimizers that take one, such as LBFGS. The update is made after the step.
            scaler: the `GradScaler` of the loop; call its `update` afterwards, as ever.

        Returns:
            What came of the update; `None`: there was none, or this is not the first process. There is none,
            though due, of a step that the scaler skips, or whose validation loss is not finite.

        Raises:
            InvalidArgumentError: an update is due and there is no batch; or see `loss_fn`.
            UsageError: the loss of this step was not observed yet.
            MlrsError: see `Run.adapt`.
        """
        if not self.is_due:
            self._since += 1
            self._take(closure, scaler)
            return None
        if batch is None:
            raise InvalidArgumentError(
                "batch: an update is due at this step; pass a validation batch, or what returns one",
                field="batch",
            )
        if scaler is not None:
            _unscale(scaler, self._optimizer)
        if closure is None and not self._has_finite_gradients():  # the scaler skips the step: the next is due
            self._take(closure, scaler)
            return None
        self._since = 0
        whole = batch() if callable(batch) else batch
        if self._is_before and closure is None:
            return self._before(whole, scaler)
        return self._after(whole, closure, scaler)

    def _before(self, batch: Any, scaler: torch.amp.GradScaler | None) -> Adaptation | None:
        """Make the update on the way that the step would go, then the step."""
        learning_rate, ratios = self._rates.current()
        step = self._observed()
        found = {self._names[weight]: d for weight, d in directions(self._optimizer, ratios).items()}
        weights = dict(self._model.named_parameters())
        way = self._ahead * learning_rate
        virtual = {name: weights[name].detach() - way * d for name, d in found.items()}
        adaptation, rate = self._adapt(step, batch, virtual, found, scaler)
        if rate is not None:
            self._rates.fill(rate)
        self._take(None, scaler)
        return adaptation

    def _after(
        self, batch: Any, closure: Callable[[], Any] | None, scaler: torch.amp.GradScaler | None
    ) -> Adaptation | None:
        """Take the step, then make the update on the way that it went."""
        weights = {name: weight for weight, name in self._names.items() if weight.requires_grad}
        old = {name: weight.detach().clone() for name, weight in weights.items()}
        self._take(closure, scaler)
        learning_rate, _ = self._rates.current()
        step = self._observed()
        if not learning_rate:
            return None
        for weight in weights.values():
            if weight.grad is not None:
                check_gradient(weight, weight.grad)
        found = {name: (old[name] - weight.detach()) / learning_rate for name, weight in weights.items()}
        halfway = {
            name: torch.lerp(old[name], weight.detach(), self._ahead) for name, weight in weights.items()
        }
        adaptation, _ = self._adapt(step, batch, halfway, found, scaler)
        return adaptation

    def _adapt(
        self,
        step: int,
        batch: Any,
        weights: dict[str, torch.Tensor],
        found: dict[str, torch.Tensor],
        scaler: torch.amp.GradScaler | None,
    ) -> tuple[Adaptation | None, float | None]:
        """Make the update, in the first process; return what came of it, and the learning rate in each."""
        if not weights:
            return None, None
        scale = scaler.get_scale() if scaler is not None else 1.0
        alignment, loss = self._group.mean(
            list(aligned(self._model, self._loss_fn, batch, weights, found, scale))
        )
        if not math.isfinite(alignment):
            _logger.warning(
                "no meta update at step %d: the validation loss is %g and the alignment %g",
                step,
                loss,
                alignment,
            )
            return None, None
        adaptation, failure = None, None
        if self._run is not None:
            try:
                adaptation = self._run.adapt(step, alignment, validation_loss=loss)
            except MlrsError as error:
                failure = error
        rate = None if adaptation is None else adaptation.learning_rate
        rate, has_failed = self._group.from_first([rate, float(failure is not None)])
        if failure is not None:
            raise failure
        if has_failed:
            raise UnavailableError("the meta update failed in the first process, which says why")
        self.updates += 1
        return adaptation, rate

    def _observed(self) -> int:
        """Return the step that was observed last.

        Raises:
            UsageError: it is the one that an update was made of before.
        """
        if self._run is None:
            return -1
        step = self._run.resume_step - 1
        if step <= self._last_step or step < 0:
            raise UsageError(
                f"step: the loss of step {step + 1} was not observed yet; call scheduler.observe(loss), or"
                " run.observe or next_lr, before meta.step"
            )
        self._last_step = step
        return step

    def _has_finite_gradients(self) -> bool:
        gradients = [weight.grad for weight in self._names if weight.grad is not None]
        return all(bool(torch.isfinite(gradient).all()) for gradient in gradients)

    def _take(self, closure: Callable[[], Any] | None, scaler: torch.amp.GradScaler | None) -> None:
        if scaler is None:
            self._optimizer.step(closure)
        elif closure is None:
            scaler.step(self._optimizer)
        else:
            raise UsageError("step: a GradScaler does not work with optimizers that take a closure")


def _together_of(scheduler: object) -> Together | None:
    """Return who takes steps together with this process by its scheduler, if anybody does."""
    from mlrs_client.torch import AdvisedLR  # which knows this module

    return scheduler._together if isinstance(scheduler, AdvisedLR) else None  # noqa: SLF001 # the package's own


def _source(scheduler: object, optimizer: Optimizer, group: Group) -> tuple[Run | None, Rates]:
    """Return the run, if this process has it, and where learning rates are."""
    from mlrs_client.torch import AdvisedLR  # which knows this module

    if isinstance(scheduler, AdvisedLR):
        if scheduler.optimizer is not optimizer:
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
        "scheduler must be an AdvisedLR, or a run of mlrs_client.connect(...).run(...); is"
        f" {type(scheduler).__name__}",
        field="scheduler",
    )


def _meta_of(run: Run | None) -> Meta:
    """Return a run's meta mode."""
    meta = Meta() if run is None else run.config.meta
    if meta is None:
        raise ConfigMismatchError(
            "the run is not in meta mode, which a run is from its creation on: open a new one with meta=True",
            field="meta",
        )
    return meta


def _names(model: nn.Module, optimizer: Optimizer) -> dict[torch.Tensor, str]:
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


def _unscale(scaler: torch.amp.GradScaler, optimizer: Optimizer) -> None:
    """Unscale the gradients, unless the loop has, to clip them."""
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:
        if "already been called" not in str(error):
            raise
