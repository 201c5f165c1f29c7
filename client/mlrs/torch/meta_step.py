"""Meta mode for PyTorch: an optimizer's step that now and then has the run's network learn."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from mlrs import Run, UnavailableError
from mlrs.adapters import real, whole
from mlrs.errors import InvalidArgumentError, UsageError
from mlrs.torch.alignment import ValidationLoss, aligned, inner
from mlrs.torch.directions import check_gradient, directions, is_known
from mlrs.torch.group import Group
from mlrs.torch.hook import unwrapped
from mlrs.torch.shards import local, mesh_of, reshard
from mlrs.torch.source import meta_of, names_of, source_of, together_of, unscale
from mlrs.types import Adaptation, MetaOrder

if TYPE_CHECKING:
    from mlrs.torch.scheduler import AdvisedLR

AHEAD = 0.5
"""How far along the step the validation gradient is taken: its slope there is the mean one over the step."""
DEFAULT_EVERY = 5
"""Steps from one meta update to the next, where the run does not say."""
_logger = logging.getLogger("mlrs")


class _Way(NamedTuple):
    """The way of a step, by the parameters' names; of parameters spread over processes, their shards here."""

    weights: dict[str, torch.Tensor]
    """w', where the validation gradient is taken."""
    directions: dict[str, torch.Tensor]
    """d, the change of the weights per unit of learning rate, downwards."""


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
            model: the model; under `DistributedDataParallel` and `fully_shard` alignments are means over the
                processes.
            loss_fn: `loss_fn(model, batch)` returns the validation loss, a scalar; it must call the model
                that it is given. Put `torch.autocast` into it where training has it.
            optimizer: that of the model's parameters, wrapped or not.
            scheduler: the `AdvisedLR` of the optimizer, or, where the loop itself sets learning rates, the
                run. `None`: this is not the first process of a distributed job.
            every: steps from one update to the next. Default: the run's.
            ahead: how far along the step the validation gradient is taken, 0.5 to 1. At 1, where it leads, as
                in the paper, learning rates rise while more of the same step would help; halfway, the
                default, while the step itself does. That is less short-sighted: docs/quality/meta.md.

        Raises:
            ConfigMismatchError: the run is not in meta mode.
            InvalidArgumentError: an argument is wrong; the error names it.
            UnavailableError: another process raised one of these.
        """
        self._model, self._loss_fn, self._optimizer = inner(model), loss_fn, unwrapped(optimizer)
        reshard(self._model)
        self._is_spread = mesh_of(self._model) is not None
        self._wrapped = optimizer  # whose step does what its framework wants done
        self._group = Group(model, together_of(scheduler))
        _, begun = self._group.share(lambda: ([], self._begin(scheduler, every, ahead)), 0)
        agreed = self._group.from_first(begun)
        self.every, self._since = int(agreed[0] or 1), int(agreed[1] or 0)
        self._is_before = bool(agreed[2])
        self._last_step = -1
        self.updates = 0

    def _begin(
        self, scheduler: AdvisedLR | Run | None, every: int | None, ahead: float
    ) -> list[float | None]:
        """Check what this process was given; return the interval, the steps since, and if it is before."""
        self._run, self._rates = source_of(scheduler, self._optimizer, self._group)
        meta = meta_of(self._run)
        if every is None:
            every = DEFAULT_EVERY if meta.every is None else meta.every
        every = whole("every", every, low=1)
        self._ahead = real("ahead", ahead, least=0.5, most=1.0)
        self._names = names_of(self._model, self._optimizer)
        since = 0 if self._run is None else self._run.next_step % every
        is_before = is_known(self._optimizer) and meta.order != MetaOrder.AFTER_STEP
        return [float(every), float(since), float(is_before)]

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
            UnavailableError: another process of the job failed: of them all, none makes the update, and ahead
                of it none takes the step. The update stays due, unless it was sent. Under `fully_shard`, a
                process that fails inside `loss_fn` raises at once, and the others fail as in a forward pass
                of training that one process leaves.
        """
        if not self.is_due:
            self._since += 1
            self._take(closure, scaler)
            return None
        is_before = self._is_before and closure is None

        def ready() -> tuple[list[float], tuple[Any, _Way]]:
            """Return whether the scaler skips the step and whether nothing moves; the batch, and the way."""
            learning_rate, ratios, is_skipped = self._ready(batch, closure, scaler)
            way = self._way_ahead(learning_rate, ratios) if is_before and not is_skipped else _Way({}, {})
            whole = None if is_skipped else _fetched(batch)
            return [float(is_skipped), float(is_before and not way.directions)], (whole, way)

        (skipped, unmoved), (whole, way) = self._group.share(ready, 2)
        if skipped:  # if any process's scaler skips the step, the update stays due
            self._take(closure, scaler)
            return None
        if is_before:
            adaptation, rate = self._adapt(unmoved, whole, way, scaler)
            if rate is not None:
                self._rates.fill(rate)
            self._take(None, scaler)
            return adaptation
        (unmoved,), way = self._group.share(lambda: self._way_gone(closure, scaler), 1)
        return self._adapt(unmoved, whole, way, scaler)[0]

    def _way_ahead(self, learning_rate: float, ratios: list[float]) -> _Way:
        """Return the way that the step would go."""
        found = {self._names[weight]: d for weight, d in directions(self._optimizer, ratios).items()}
        weights = {name: local(weight).detach() for weight, name in self._names.items()}
        reach = self._ahead * learning_rate
        return _Way({name: weights[name] - reach * d for name, d in found.items()}, found)

    def _way_gone(
        self, closure: Callable[[], Any] | None, scaler: torch.amp.GradScaler | None
    ) -> tuple[list[float], _Way]:
        """Take the step; return whether it moved nothing, and the way that it went."""
        weights = {name: weight for weight, name in self._names.items() if weight.requires_grad}
        old = {name: local(weight).detach().clone() for name, weight in weights.items()}
        self._take(closure, scaler)
        learning_rate, _ = self._rates.current()
        self._check_observed()
        if not learning_rate or not weights:
            return [1.0], _Way({}, {})
        for weight in weights.values():
            if weight.grad is not None:
                check_gradient(weight, weight.grad)
        new = {name: local(weight).detach() for name, weight in weights.items()}
        return [0.0], _Way(
            {name: torch.lerp(old[name], new[name], self._ahead) for name in weights},
            {name: (old[name] - new[name]) / learning_rate for name in weights},
        )

    def _ready(
        self, batch: Any, closure: Callable[[], Any] | None, scaler: torch.amp.GradScaler | None
    ) -> tuple[float, list[float], bool]:
        """Return the learning rate and the ratios to it, and whether the scaler skips the step.

        The learning rate comes first, whatever is amiss here: the others wait for it together with this
        process.
        """
        learning_rate, ratios = self._rates.current()
        reshard(self._model)
        if batch is None:
            raise InvalidArgumentError(
                "batch: an update is due at this step; pass a validation batch, or what returns one",
                field="batch",
            )
        if scaler is not None:
            unscale(scaler, self._optimizer)
        is_skipped = closure is None and not self._has_finite_gradients()
        if closure is None and not is_skipped:  # a closure may be what observes
            self._check_observed()
        return learning_rate, ratios, is_skipped

    def _aligned(self, batch: Any, way: _Way, scaler: torch.amp.GradScaler | None) -> list[float]:
        """Return the alignment and the validation loss, means over the processes."""
        scale = scaler.get_scale() if scaler is not None else 1.0

        def find() -> tuple[list[float], None]:
            return [*aligned(self._model, self._loss_fn, batch, way.weights, way.directions, scale)], None

        if self._is_spread:  # both passes are collective, so a process that fails in one must not wait here
            found = find()
            return self._group.share(lambda: found, 2)[0]
        return self._group.share(find, 2)[0]

    def _adapt(
        self, unmoved: float, batch: Any, way: _Way, scaler: torch.amp.GradScaler | None
    ) -> tuple[Adaptation | None, float | None]:
        """Make the update, in the first process; return what came of it, and the learning rate in each.

        Args:
            unmoved: the share of the processes where nothing moves; if any is there, there is no update.
            batch: for the validation loss.
            way: of the step.
            scaler: the loop's.
        """
        if unmoved:
            self._since = 0
            return None, None
        alignment, loss = self._aligned(batch, way, scaler)
        self._since = 0
        if not math.isfinite(alignment):
            _logger.warning(
                "no meta update at step %d: the validation loss is %g and the alignment %g",
                self._step(),
                loss,
                alignment,
            )
            return None, None
        adaptation: Adaptation | None = None
        failure: BaseException | None = None
        if self._run is not None:
            try:
                self._last_step = self._step()
                adaptation = self._run.adapt(self._last_step, alignment, validation_loss=loss)
            except BaseException as error:  # noqa: BLE001  # an interrupt, too: the others wait for word
                failure = error
        rate = None if adaptation is None else adaptation.learning_rate
        rate, has_failed = self._group.from_first([rate, float(failure is not None)])
        if failure is not None:
            raise failure
        if has_failed:
            raise UnavailableError("the meta update failed in the first process, which says why")
        self.updates += 1
        return adaptation, rate

    def _step(self) -> int:
        """Return the step that was observed last; -1: none, or this is not the first process."""
        return -1 if self._run is None else self._run.next_step - 1

    def _check_observed(self) -> None:
        """Check that there is an observation that no update was made of."""
        if self._run is None:
            return
        step = self._step()
        if step <= self._last_step or step < 0:
            raise UsageError(
                f"step: the loss of step {step + 1} was not observed yet; call scheduler.observe(loss), or"
                " run.observe or next_lr, before meta.step"
            )

    def _has_finite_gradients(self) -> bool:
        gradients = [local(weight.grad) for weight in self._names if weight.grad is not None]
        return all(bool(torch.isfinite(gradient).all()) for gradient in gradients)

    def _take(self, closure: Callable[[], Any] | None, scaler: torch.amp.GradScaler | None) -> None:
        if scaler is None:
            self._wrapped.step(closure)
        elif closure is None:
            scaler.step(self._optimizer)
        else:
            raise UsageError("step: a GradScaler does not work with optimizers that take a closure")


def _fetched(batch: Any) -> Any:
    return batch() if callable(batch) else batch
