"""Meta mode for PyTorch: optimizer steps that regularly adapt the run's network."""

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
"""Where on the step the validation gradient is taken: halfway, which gives the mean slope over the step."""
DEFAULT_EVERY = 5
"""Steps from one meta update to the next, where the run's config has none."""
_logger = logging.getLogger("mlrs")


class _Path(NamedTuple):
    """The path of a step, by the parameters' names; for sharded parameters, this process's shards."""

    weights: dict[str, torch.Tensor]
    """w', where the validation gradient is taken."""
    directions: dict[str, torch.Tensor]
    """d, the change of the weights per unit of learning rate, downwards."""


class MetaStep:
    """Takes the optimizer's steps, and makes a meta update at every `every`-th.

        run = advisor.run("resnet18", meta=True)
        scheduler = AdvisedLR(optimizer, run)
        meta = MetaStep(model, loss_fn, optimizer, scheduler)
        for batch in loader:
            optimizer.zero_grad()
            loss = loss_fn(model, batch)
            scheduler.observe(loss)
            loss.backward()
            meta.step(lambda: next(validation_batches))   # instead of optimizer.step()
            scheduler.step()

    In `before_step`, the paper's order, d is the direction of SGD, Adam or AdamW per unit of learning rate,
    the validation gradient is taken at w - ahead * lr * d, and the real step uses the updated learning
    rate. In `after_step`, and for any other optimizer, the real step is made first, d is its direction, and
    the update takes effect at the next step. Neither changes the model's buffers or gradients, nor the
    optimizer's state.

    Attributes:
        every: steps from one update to the next.
        updates: the number of updates that this object has made.
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
        """Begin. In a distributed job it is a collective call.

        Args:
            model: the model; under `DistributedDataParallel` and `fully_shard` alignments are means over the
                processes.
            loss_fn: `loss_fn(model, batch)` returns the validation loss, a scalar; it must call its
                argument `model`. Use `torch.autocast` in it where training does.
            optimizer: that of the model's parameters, wrapped or not.
            scheduler: the `AdvisedLR` of the optimizer, or, where the loop itself sets learning rates, the
                run. `None`: this process is not the first of a distributed job.
            every: steps from one update to the next. Default: the run's.
            ahead: where on the step the validation gradient is taken, 0.5 to 1. At 1, the end of the step, as
                in the paper, learning rates rise as long as a longer step would help. At 0.5, the default,
                they rise as long as the step itself helps, which is less short-sighted: see
                docs/quality/meta.md.

        Raises:
            ConfigMismatchError: the run is not in meta mode.
            InvalidArgumentError: an argument is wrong; the error names it.
            UnavailableError: another process raised one of these errors.
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
        """Check this process's arguments; return the interval, the steps since an update, and the order."""
        self._run, self._rates = source_of(scheduler, self._optimizer, self._group)
        meta = meta_of(self._run)
        if every is None:
            every = DEFAULT_EVERY if meta.every is None else meta.every
        every = whole("every", every, low=1, high=2**53)
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
            scaler: the `GradScaler` of the loop; call its `update` afterwards, as usual in PyTorch.

        Returns:
            The result of the update; `None`: there was none, or this is not the first process. A due update
            is not made for a step that the scaler skips, or whose validation loss is not finite.

        Raises:
            InvalidArgumentError: an update is due and `batch` is missing; or `loss_fn` returned no scalar.
            UsageError: the loss of this step was not observed yet.
            MlrsError: see `Run.adapt`.
            UnavailableError: another process of the job failed: no process makes the update, nor the step, if
                it comes after the update. The update stays due, unless it was sent. Under `fully_shard`, a
                process that fails inside `loss_fn` raises at once, and the others fail as in any forward
                pass that one process leaves.
        """
        if not self.is_due:
            self._since += 1
            self._take(closure, scaler)
            return None
        is_before = self._is_before and closure is None

        def ready() -> tuple[list[float], tuple[Any, _Path]]:
            """Return whether the scaler skips the step and whether nothing moves; the batch, and the path."""
            learning_rate, ratios, is_skipped = self._ready(batch, closure, scaler)
            path = self._path_ahead(learning_rate, ratios) if is_before and not is_skipped else _Path({}, {})
            whole = None if is_skipped else _fetched(batch)
            return [float(is_skipped), float(is_before and not path.directions)], (whole, path)

        (skipped, unmoved), (whole, path) = self._group.share(ready, 2)
        if skipped:  # if any process's scaler skips the step, the update stays due
            self._take(closure, scaler)
            return None
        if is_before:
            adaptation, rate = self._adapt(unmoved, whole, path, scaler)
            if rate is not None:
                self._rates.fill(rate)
            self._take(None, scaler)
            return adaptation
        (unmoved,), path = self._group.share(lambda: self._path_taken(closure, scaler), 1)
        return self._adapt(unmoved, whole, path, scaler)[0]

    def _path_ahead(self, learning_rate: float, ratios: list[float]) -> _Path:
        """Return the path of the next step, which is not taken."""
        found = {self._names[weight]: d for weight, d in directions(self._optimizer, ratios).items()}
        weights = {name: local(weight).detach() for weight, name in self._names.items()}
        reach = self._ahead * learning_rate
        return _Path({name: weights[name] - reach * d for name, d in found.items()}, found)

    def _path_taken(
        self, closure: Callable[[], Any] | None, scaler: torch.amp.GradScaler | None
    ) -> tuple[list[float], _Path]:
        """Take the step; return whether it moved nothing, and its path."""
        weights = {name: weight for weight, name in self._names.items() if weight.requires_grad}
        old = {name: local(weight).detach().clone() for name, weight in weights.items()}
        self._take(closure, scaler)
        learning_rate, _ = self._rates.current()
        self._check_observed()
        if not learning_rate or not weights:
            return [1.0], _Path({}, {})
        for weight in weights.values():
            if weight.grad is not None:
                check_gradient(weight, weight.grad)
        new = {name: local(weight).detach() for name, weight in weights.items()}
        return [0.0], _Path(
            {name: torch.lerp(old[name], new[name], self._ahead) for name in weights},
            {name: (old[name] - new[name]) / learning_rate for name in weights},
        )

    def _ready(
        self, batch: Any, closure: Callable[[], Any] | None, scaler: torch.amp.GradScaler | None
    ) -> tuple[float, list[float], bool]:
        """Return the learning rate and the ratios to it, and whether the scaler skips the step.

        The learning rate comes first, before any error here: getting it is a collective call.
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

    def _aligned(self, batch: Any, path: _Path, scaler: torch.amp.GradScaler | None) -> list[float]:
        """Return the alignment and the validation loss, means over the processes."""
        scale = scaler.get_scale() if scaler is not None else 1.0

        def find() -> tuple[list[float], None]:
            return [*aligned(self._model, self._loss_fn, batch, path.weights, path.directions, scale)], None

        if self._is_spread:  # both passes are collective, so a process that fails in one must not wait here
            found = find()
            return self._group.share(lambda: found, 2)[0]
        return self._group.share(find, 2)[0]

    def _adapt(
        self, unmoved: float, batch: Any, path: _Path, scaler: torch.amp.GradScaler | None
    ) -> tuple[Adaptation | None, float | None]:
        """Make the update in the first process; return its result there, and the learning rate in each.

        Args:
            unmoved: the share of the processes where nothing moves; unless it is 0, there is no update.
            batch: for the validation loss.
            path: the path of the step.
            scaler: the loop's.
        """
        if unmoved:
            self._since = 0
            return None, None
        alignment, loss = self._aligned(batch, path, scaler)
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
            except BaseException as error:  # noqa: BLE001  # an interrupt, too: the others wait for this process
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
        """Return the last observed step; -1: none, or this is not the first process."""
        return -1 if self._run is None else self._run.next_step - 1

    def _check_observed(self) -> None:
        """Raise `UsageError` unless there is an observation without an update."""
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
