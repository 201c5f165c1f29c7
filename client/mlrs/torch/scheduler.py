"""A learning-rate scheduler whose schedule is a daemon's advice. `mlrs.torch` shows how it is used."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from typing import Any, ParamSpec, TypeVar, Unpack

import torch
from torch import nn
from torch.distributed import ProcessGroup
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mlrs import Advisor, Run, SearchResult
from mlrs.adapters import RunState, TaskOptions, TrialLoop, number, real, whole
from mlrs.errors import InvalidArgumentError, UsageError
from mlrs.torch.copies import SaveTo
from mlrs.torch.hook import Hook, Progress, unwrapped
from mlrs.torch.loss import Loss, loss_of, mean_of
from mlrs.torch.optimizers import describe, set_rates
from mlrs.torch.ranks import Asked, Shared, Together, Told, together_of
from mlrs.torch.rescue.rescue import Rescue, has_rescue, told
from mlrs.torch.search import loop as searching
from mlrs.torch.signals.recorder import Recorder
from mlrs.torch.signals.sums import NUMBERS, Measured, numbers_of, signals_of
from mlrs.torch.task import run_of
from mlrs.types import Signals

P = ParamSpec("P")
T = TypeVar("T")


class AdvisedLR(LRScheduler):
    """Sets the learning rate of every update to what a daemon advises for the loss of that update.

    The parameter group with the largest initial learning rate gets the advice, the others keep their
    ratio to it, also groups that are added later. A group's entry `lr_scale`, as timm's layer-wise decay
    makes it, multiplies its learning rate. Learning rates that are tensors are filled in place.

    An optimizer has one `AdvisedLR` at a time: a new one replaces the earlier one, whose methods that
    observe, step or load then raise `UsageError`.

    Args:
        optimizer: its learning rates are overwritten at each step. If it is wrapped in an object that has it
            as its attribute `optimizer`, as Accelerate's, it is found there.
        run: the name of what is trained, of which a run is made, with `options`; or a run. If its config
            lacks `optimizer` or `momentum`, they are read from the optimizer before the first step. In a
            distributed job, the first rank makes the run, or its run is used, and others may pass `None`;
            where each rank has the run with a `rank`, each sends its own loss instead.
        accumulation_steps: the number of `observe` calls, one for each micro-batch, in a step; the mean of
            their losses is sent. An earlier `optimizer.step()` sends the mean of the losses so far.
        lagged: never wait: update with the newest advice of the earlier steps, normally that of the step
            before. Only the first step waits, and, with `rescue`, the loss of a step that is to be copied.
        distributed: whether the ranks of a distributed job share the run.
        process_group: the ranks that share it. Default: all processes of the job.
        signals: whether to send measures of the optimizer's steps with the losses: the first 100 steps, then
            every eighth (`mlrs.types.Signals`). They are computed on the device, from copies of a
            sample of the weights. What cannot be measured is not sent.
        rescue: whether to ask for rescue, if the run has not begun, and to keep one copy of the optimizer's
            weights and state in host memory: made before the first update, and replaced after each healthy
            tenth of the horizon, or at each lowest validation loss that `run.validate` tells. When the advice
            of a step says that the training blew up or overfits, the copy is put back in place after its
            update, and learning rates are lower from there on. Where each rank opens the run with a `rank`,
            nothing is asked, and no copy is kept.
        model: the model, if it has buffers, as BatchNorm's averages, or parameters of other optimizers, that
            are to be put back, too.
        advisor: the daemon of a run that is made. Default: the one that `mlrs.run` finds.
        options: those of `Advisor.run` for a run that is made, such as `horizon`. A run of another model than
            the daemon's default is made before, and handed over.

    Raises:
        InvalidArgumentError: an argument is wrong, or every initial learning rate is 0.
        UsageError: from its methods, after another `AdvisedLR` was made for the optimizer, or after `detach`.
        ConfigMismatchError: the run was begun with another optimizer.
        UnavailableError: another rank raised an error; this one names the rank. All methods but `state_dict`
            raise it at the ranks' next collective call.
        MlrsError: the daemon is unreachable, and the config of an open run has to be completed.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        run: Run | str | None,
        *,
        accumulation_steps: int = 1,
        lagged: bool = False,
        distributed: bool = True,
        process_group: ProcessGroup | None = None,
        signals: bool = True,
        rescue: bool = True,
        model: nn.Module | None = None,
        advisor: Advisor | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        rank = options.get("rank")
        self._together = together_of(run, process_group, distributed=distributed, rank=rank)
        self._run: Run | None = None
        self._accumulation_steps = 1
        self._lagged = lagged
        self._wrong: Exception | None = None  # raised at the ranks' next collective
        self._losses: list[
            tuple[Loss, float]
        ] = []  # and samples, of the micro-batches since the last observation was sent
        self._pending: Callable[[], Told] | None = None  # returns the advice of the present step
        self._reader: ThreadPoolExecutor | None = None  # reads losses off a device
        self._unread: deque[Future[Callable[[], Told]]] = deque()  # of a lagged loop: losses being read
        self._applied = False  # whether its advice is set in the optimizer
        self._advised_lr: float | None = None
        self._loads = 0  # loaded states; losses from before are dropped
        self._is_searching = False
        self._sent_step: int | None = None  # whose loss was the last one sent
        self._validated: tuple[int, float] | None = None  # the step and the loss of the newest validation
        self._sending = threading.Lock()

        def begin() -> tuple[str, int]:
            self._run = run_of(run, self._together, advisor, options)
            self._accumulation_steps = whole("accumulation_steps", accumulation_steps, low=1)
            has_copy = bool(rescue) and not (self._run is not None and self._run.rank is not None)
            inner = unwrapped(optimizer)
            self._rescue = Rescue(inner, model, self._together, is_on=has_copy)
            return self._begin(inner, rescue=has_copy)

        self._run_id, self.last_epoch = begin() if self._together is None else self._together.begin(begin)
        self._rescue.begin(self.last_epoch)
        self._signals = self._recorder(is_on=bool(signals))
        self._hook = Hook(self.optimizer, self._before_update, self._progress, self._after_update)

    @property
    def run(self) -> Run | None:
        """The run; `None` on the ranks of a distributed job that do not talk to the daemon."""
        return self._run

    def observe(self, loss: torch.Tensor | float | None, *, samples: float | None = None) -> None:
        """Send the training loss of this step, and return at once (of several ranks: after a collective).

        Args:
            loss: one number, or a tensor of one element; NaN and infinities are legal. `None`: this rank has
                none, as an early stage of a pipeline.
            samples: the number of samples that it is the mean of, where micro-batches or ranks have
                different numbers. Default: 1.

        Raises:
            InvalidArgumentError: the loss is invalid. With several ranks, all raise at the last micro-batch
                of the step.
            UsageError: the loss of this step was observed already. With several ranks, all raise when they
                observe the next loss.
            MlrsError: see `Run.observe`.
        """
        if self._hook.is_known:
            return
        self._check_not_searching("observe")
        value = self._counted(loss, samples)
        if self._pending is not None:
            self._defer(
                UsageError(
                    f"observe: the loss of step {self.last_epoch} was observed already. Call scheduler.step()"
                    " once the optimizer has stepped; to observe several micro-batches per step, pass"
                    " accumulation_steps= to AdvisedLR"
                )
            )
            if self._applied:  # the others have begun their next step
                self._raise_deferred()
            return
        self._losses.append(value)
        if len(self._losses) == self._accumulation_steps:
            self._send()

    def validate(self, loss: torch.Tensor | float) -> None:
        """Tell a validation loss that was measured between two steps; see `Run.validate`.

        Unlike one that is told to the run, it is part of `state_dict` until a loss is observed: a training
        that continues from there tells it again. Of several ranks, the first one's counts.

        Raises:
            InvalidArgumentError: the loss is no number.
        """
        value = number("loss", loss)
        if self._run is not None:
            self._run.validate(self.last_epoch, value)
            self._validated = self.last_epoch, value

    def step(self, loss: torch.Tensor | float | None = None) -> None:
        """End this step. With a loss: observe it first, and apply the advice now.

        Raises:
            UsageError: no loss was observed since the last step.
            MlrsError: see `observe` and `Pending.lr`.
        """
        self._check_not_searching("step")
        try:
            self._hook.check()
        except UsageError as error:
            self._defer(error)
            self._raise_deferred()
        if loss is not None:
            self.observe(loss)
        if self._pending is None and not self._losses:
            self._defer(
                UsageError(
                    f"step: no loss was observed for step {self.last_epoch}. Call scheduler.observe(loss)"
                    " right after the loss, or scheduler.step(loss)"
                )
            )
            self._raise_deferred()  # the others are about to observe theirs
        self._apply()  # not done yet if a GradScaler skipped the optimizer's step
        if self._rescue.end(self.last_epoch, is_told=loss is not None):
            self._signals.forget()
        self._pending, self._applied = None, False
        self.last_epoch += 1
        self._step_count += 1

    def search(
        self,
        model: nn.Module,
        loss_fn: searching.LossFunction,
        batches: Iterable[Any],
        *,
        step_fn: searching.StepFunction | None = None,
        scaler: torch.amp.GradScaler | None = None,
        also_save: Iterable[Any] = (),
        save_to: SaveTo = "device",
        always: bool = False,
        charge_steps: bool = False,
        timeout_s: float | None = None,
    ) -> SearchResult:
        """Find the learning rate to begin with, in a few short trials; call it before the loop.

        Parameters, buffers, gradients, the optimizer's state, the scaler and the random number generators,
        also one that the loader has, are as before when it returns or raises, to the bit. In a distributed
        job, call it on every rank. If one rank fails, all raise; but one that fails where ranks communicate,
        as in `backward` or a `step_fn`, raises at once, and the others when its process ends, as in training.

        Args:
            model: the model that the optimizer trains; under `DistributedDataParallel`, the wrapped one.
            loss_fn: `loss_fn(model, batch)` returns the training loss, a scalar; it must call its argument
                `model`. Use `torch.autocast` in it where training does.
            batches: training batches, such as the loader; about 4 + 1 % of the horizon are read, moved to the
                model's device and kept until the search ends.
            step_fn: `step_fn(model, batch)` makes a whole step of the training, with its clipping or
                accumulation, and returns its loss; it calls no method of this scheduler. Default: backward,
                and a step of the optimizer.
            scaler: the AMP scaler of the training, if it has one.
            also_save: a list of what else steps change: an EMA copy, a module, a tensor, a generator, another
                optimizer, an object with `state_dict`.
            save_to: where the copies are kept: `device`, beside the tensors, or `cpu`, in host memory.
            always: as for `Run.search`.
            charge_steps: as for `Run.search`.
            timeout_s: as for `Run.search`.

        Returns:
            The learning rate, and the trials, on the first rank; or why no search was made.

        Raises:
            UsageError: a loss was observed already.
            InvalidArgumentError: an argument is wrong, or there are too few batches.
            UnavailableError: another rank raised an error; this one names the rank.
            MlrsError: see `Run.search`.
        """

        def make() -> searching.TorchLoop:
            self._hook.check()
            has_losses = bool(self._losses) or self._pending is not None
            searching.check_beginning(self.last_epoch, has_losses=has_losses)
            ratios = self._ratios()
            return searching.TorchLoop(
                model,
                self.optimizer,
                loss_fn,
                batches,
                lambda learning_rate: set_rates(self.optimizer, learning_rate, ratios),
                step_fn=step_fn,
                scaler=scaler,
                also_save=also_save,
                save_to=save_to,
            )

        def decide(loop: TrialLoop, start: Callable[[], str]) -> SearchResult:
            return self._own_run().search(
                loop, start=start, always=always, charge_steps=charge_steps, timeout_s=timeout_s
            )

        self._is_searching = True
        try:
            return searching.search(make, self._together, decide)
        finally:
            self._is_searching = False

    def finish(
        self, *, metric: float | None = None, higher_is_better: bool = False, timeout_s: float | None = None
    ) -> None:
        """Mark the run as finished, once training is complete; see `Run.finish`.

        May be called on every rank: those that do not talk to the daemon do nothing.
        """
        if self._reader is not None:
            self._reader.submit(int).result()  # the losses that were on a device are sent
        if self._run is not None:
            self._run.finish(metric=metric, higher_is_better=higher_is_better, timeout_s=timeout_s)

    def detach(self) -> None:
        """Stop setting learning rates: the optimizer's steps wait for no advice. The run stays open.

        In a distributed job, call it on every rank, between two steps.
        """
        self._hook.remove("detach() was called")
        self._signals.stop()
        self._rescue.stop()

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the learning rates of the parameter groups, as `get_last_lr` does."""
        return self.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Return the run's id, the next step, the last advice and the initial LRs, as plain values.

        Also what the next observation says besides its loss: whether a copy was put back since the last one,
        and the validation loss that was told since. Call it after `step()`: losses of micro-batches that were
        not sent are not included, nor is the copy that rescue keeps.
        """
        state = RunState(self._run_id, self.last_epoch, self._advised_lr)
        restored = self._rescue.is_restored(self.last_epoch)
        saved = {**asdict(state), "base_lrs": [float(lr) for lr in self.base_lrs], "restored": restored}
        if self._validated is not None and self._validated[0] == self.last_epoch:
            saved["validation_loss"] = self._validated[1]
        return saved

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a state: with its run, which goes back to its step.

        May be called before or after the optimizer's `load_state_dict`. In a distributed job, call it on
        every rank, between two steps. A copy that rescue kept is dropped: nothing can be restored until the
        next one is made, after a healthy tenth of the horizon.

        Raises:
            InvalidArgumentError: it is no state of this class, or the run has not reached its step.
            RunNotFoundError: the daemon does not have the run.
            MlrsError: see `Run.resume`.
        """

        def find() -> tuple[RunState, list[float]]:
            self._hook.check()
            if self._wrong is not None:  # an error that this rank has not raised yet
                raise self._wrong
            state = RunState.from_dict(state_dict)
            if (told := state_dict.get("validation_loss")) is not None:
                number("validation_loss", told)
            return state, _base_lrs_of(state_dict, len(self.optimizer.param_groups))

        def resume() -> tuple[str, int]:
            if self._run is not None:
                self._run.resume(state)
            return state.run_id, state.step

        if self._reader is not None and self._together is not None:
            self._reader.submit(int).result()  # completes the collective calls of earlier losses
        with self._sending:
            state, base_lrs = find() if self._together is None else self._together.load(find)
            begun = resume() if self._together is None else self._together.begin(resume)
            self._run_id, self.last_epoch = begun
            self._loads += 1
        self._losses, self._pending, self._applied, self._wrong = [], None, False, None
        self._unread.clear()
        self._sent_step = None
        self._rescue.begin(self.last_epoch, is_restored=bool(state_dict.get("restored")))
        self._signals.forget()
        self._validated = None
        if (validation_loss := state_dict.get("validation_loss")) is not None:
            self.validate(validation_loss)
        self.base_lrs[: len(base_lrs)] = base_lrs
        self._advised_lr = state.last_lr
        if self._advised_lr is not None:
            self._fill(self._advised_lr)

    def _check_not_searching(self, method: str) -> None:
        """Raise `UsageError` during a search, whose losses are no observations."""
        if self._is_searching:
            raise UsageError(
                f"{method} was called in a trial of a search; step_fn returns the loss, and leaves the"
                " scheduler alone"
            )

    def _initial_step(self) -> None:
        """Set no learning rate: there is no advice yet."""
        self._step_count = 1
        self._remember()

    def _counted(self, loss: torch.Tensor | float | None, samples: float | None) -> tuple[Loss, float]:
        """Return a checked loss and its number of samples."""
        if loss is None and self._together is not None:
            return loss_of(0.0), 0.0
        try:
            self._hook.check()
            if loss is None:
                raise InvalidArgumentError(
                    "loss may be None only where several ranks share a run", field="loss"
                )
            return loss_of(loss), 1.0 if samples is None else real("samples", samples, above=0.0)
        except Exception as error:  # noqa: BLE001  # the others wait for this rank
            self._defer(error)
        return loss_of(0.0), 0.0

    def _defer(self, error: Exception) -> None:
        """Raise an error; with several ranks, keep it for their next collective call."""
        if self._together is None:
            raise error
        self._wrong = self._wrong or error

    def _raise_deferred(self) -> None:
        """Raise a deferred error here and on the other ranks."""
        if self._together is not None and self._wrong is not None:
            wrong, self._wrong = self._wrong, None
            self._together.raise_on_all(wrong)

    def _send(self) -> None:
        """Send the mean of the losses, in another thread if they have to be read from a device."""
        losses, step = self._losses, self.last_epoch
        self._rescue.observed()
        is_here = all(loss.is_here for loss, _ in losses)
        measured = self._signals.take(step, is_late=not is_here)
        self._sent_step = step
        if self._together is not None:
            self._send_together(self._together, step, losses, measured)
            return
        if is_here:
            self._pending = self._ask(step, losses, measured)
            self._losses = []
            return
        self._losses = []
        read = self._read(self._ask_later, step, losses, measured, self._loads)
        if self._lagged:
            self._unread.append(read)
            self._pending = self._newest
        else:
            self._pending = lambda: read.result()()  # noqa: PLW0108 # `read.result` is called later, too

    def _send_together(
        self,
        together: Together,
        step: int,
        losses: Sequence[tuple[Loss, float]],
        measured: Measured | None,
    ) -> None:
        """Send the mean of all ranks' losses; if one rank fails, all raise, and the losses are dropped."""
        self._losses = []
        try:
            if len(self.base_lrs) < len(self.optimizer.param_groups):
                self._ratios()  # includes groups that were added
        except Exception as error:  # noqa: BLE001  # the others wait for this rank
            self._defer(error)
        wrong, self._wrong = self._wrong, None

        def find() -> tuple[float, float, Sequence[float]]:
            if wrong is not None:
                raise wrong
            return *mean_of(losses), numbers_of(measured)[: together.summed]

        def ask_daemon(mean: float, sums: list[float]) -> Callable[[], Told]:
            return self._observe(step, mean, 1.0, signals_of(sums or numbers_of(measured)))

        def ask() -> Asked:
            return together.ask(find, ask_daemon)

        is_here = self._lagged or all(loss.is_here for loss, _ in losses)
        self._pending = Shared(together, ask() if is_here else self._read(ask))

    def _read(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Read losses from a device in another thread."""
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, "mlrs-loss")
        return self._reader.submit(read, *args, **kwargs)

    def _ask(
        self, step: int, losses: Sequence[tuple[Loss, float]], measured: Measured | None
    ) -> Callable[[], Told]:
        """Observe the mean of some losses; return a function that waits for the advice."""
        mean, samples = mean_of(losses)
        return self._observe(step, mean, samples, signals_of(numbers_of(measured)))

    def _ask_later(
        self, step: int, losses: Sequence[tuple[Loss, float]], measured: Measured | None, loads: int
    ) -> Callable[[], Told]:
        """Do what `_ask` does in another thread; raise `CancelledError` after `load_state_dict` or `detach`.

        Args:
            step: the step.
            losses: its losses.
            measured: of the step before, if it was measured.
            loads: the count of loaded states when they were observed.
        """
        mean, samples = mean_of(losses)
        numbers = numbers_of(measured)
        with self._sending:
            if loads != self._loads or self._hook.is_removed:
                raise CancelledError
            return self._observe(step, mean, samples, signals_of(numbers))

    def _observe(self, step: int, mean: float, samples: float, signals: Signals | None) -> Callable[[], Told]:
        """Send a loss, and the signals of the step before; return a function that waits for the advice."""
        run, health, is_lagged = self._own_run(), self._rescue.health, self._lagged
        pending = run.observe(
            step,
            mean,
            samples=samples,
            signals=signals,
            restored=self._rescue.is_restored(step),
            lagged=is_lagged,
        )
        health.note(step, mean, pending.validation_loss)

        def advised() -> Told:  # without `self`: a scheduler that is dropped lets go at once
            if is_lagged:
                return told(run, health, step, pending.lr())
            advice = pending.advice()
            return told(run, health, step, advice.learning_rate, restore=advice.restore)

        return advised

    def _own_run(self) -> Run:
        if self._run is None:
            raise AssertionError("only the first rank talks to the daemon")
        return self._run

    def _begin(self, optimizer: Optimizer, *, rescue: bool) -> tuple[str, int]:
        """Begin to schedule an optimizer; return the run's id and next step, where this process has it."""
        if self._run is not None:
            largest = max(float(group["lr"]) for group in optimizer.param_groups)
            self._run.describe(default_lr=largest, rescue=rescue or None, **describe(optimizer))
        super().__init__(optimizer)
        self._ratios()
        if self._run is None:
            return "", 0
        state = self._run.state()
        return state.run_id, state.step

    def _recorder(self, *, is_on: bool) -> Recorder:
        """Return what measures the optimizer's steps; it is off where the numbers are not needed."""
        recorder = Recorder(self.optimizer, is_on=is_on)
        is_needed = self._run is not None and not self._run.rank
        if self._together is not None:
            is_sharded = recorder.is_sharded()
            self._together.agree_to_sum(NUMBERS if is_sharded else 0)
            is_needed = self._together.summed > 0 if is_sharded else is_needed
        if not is_needed:
            recorder.stop()
        return recorder

    def _newest(self) -> Told:
        """Return the newest advice of a lagged loop; waits for the first."""
        while len(self._unread) > 1 and self._unread[0].done():
            self._unread.popleft().result()  # which raises if it could not be sent
        run, health, step = self._own_run(), self._rescue.health, self.last_epoch
        lr = run.newest_lr(before=step)
        if lr is None:
            return self._unread[0].result()()
        if has_rescue(run) and health.may_keep(step):
            wait([self._unread[-1]])  # for the loss of this step; a copy would wait for the device anyway
        return told(run, health, step, lr)

    def _apply(self) -> None:
        """Wait for the advice of this step, if one was observed, and put it into the optimizer."""
        if self._losses:
            self._send()
        if self._pending is not None and not self._applied:
            try:
                self._advised_lr, then = self._pending()
            except BaseException:
                if isinstance(self._pending, Shared) and self._pending.is_void:
                    self._pending = None
                raise
            self._fill(self._advised_lr)
            self._rescue.advised(then)
            self._applied = True

    def _before_update(self) -> None:
        """Set the advice of this step before an update, and let the signals follow the update."""
        if self._losses:
            self._send()
        if self._sent_step is not None and not self._is_searching:
            self._signals.before(self._sent_step)  # while the advice is on its way
        self._apply()
        self._rescue.before_update()

    def _after_update(self) -> None:
        self._signals.after()
        if not self._is_searching and self._rescue.after_update(in_step=self._pending is not None):
            self._signals.forget()

    def _progress(self) -> Progress:
        """Return how far this step has come, for the hook."""
        return Progress(self.last_epoch, is_observed=self._pending is not None, is_applied=self._applied)

    def _fill(self, learning_rate: float) -> None:
        set_rates(self.optimizer, learning_rate, self._ratios())
        self._remember()

    def _ratios(self) -> list[float]:
        """Return the initial LR of each group over the largest, times its `lr_scale`."""
        groups = self.optimizer.param_groups
        for group in groups[len(self.base_lrs) :]:
            self.base_lrs.append(group.setdefault("initial_lr", float(group["lr"])))
        bases = [float(lr) for lr in self.base_lrs]
        if not (largest := max(bases)) > 0.0 or not math.isfinite(largest):
            raise InvalidArgumentError(
                f"optimizer: the largest initial LR is {largest}; the groups' ratios need it to be > 0",
                field="optimizer",
            )
        scales = [float(group.get("lr_scale", 1.0)) for group in groups]
        return [base / largest * scale for base, scale in zip(bases, scales, strict=True)]

    def _remember(self) -> None:
        lrs = [group["lr"] for group in self.optimizer.param_groups]
        self._last_lr = [lr.clone() if isinstance(lr, torch.Tensor) else lr for lr in lrs]


def _base_lrs_of(saved: Mapping[str, Any], groups: int) -> list[float]:
    """Return the initial LRs that a state holds, for an optimizer with so many parameter groups."""
    try:
        base_lrs = [float(lr) for lr in saved["base_lrs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"state_dict: its base_lrs are not numbers ({error!r}): it is not of an AdvisedLR",
            field="state_dict",
        ) from error
    if len(base_lrs) > groups:
        raise InvalidArgumentError(
            f"state_dict is of {len(base_lrs)} parameter groups, the optimizer has {groups}: add its groups"
            " before loading",
            field="state_dict",
        )
    return base_lrs
