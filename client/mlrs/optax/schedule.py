"""A stateful schedule of Optax whose learning rates are a daemon's advice. `mlrs.optax` has the usage."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Unpack, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental import io_callback

import mlrs
from mlrs.adapters import RunOptions, whole
from mlrs.errors import InvalidArgumentError, UsageError
from mlrs.optax.asking import Asking
from mlrs.optax.trials import Trials, first_state

_logger = logging.getLogger("mlrs")
ID_SIZE = 256
"""The most letters of a run's id."""
MANY_TRACES = 20
"""So many traces or more, one for nearly each step, are a mistake worth a warning."""


class AdvisedState(NamedTuple):
    """The schedule's part of the optimizer's state."""

    count: jax.Array
    """The step of the next update, int32."""
    run: jax.Array
    """The run's id, (256,) uint8: ASCII, filled with zeros."""
    micro_step: jax.Array
    """How many micro-batches of this step were seen, int32."""
    loss_sum: jax.Array
    """The sum of their losses."""


class AdvisedLR:
    """A schedule that advises the learning rate of each update for the training loss of that update.

    It is an `optax.StatefulSchedule`: `advised` or `optax.inject_hyperparams` make an optimizer with it, and
    `optimizer.update(grads, state, params, value=loss)` gives it the loss. Within compiled code an ordered
    `io_callback` asks the daemon; the code is compiled once. It works under `jax.jit`, `jax.lax.scan`,
    `jax.lax.cond`, with donated buffers, and with sharded arrays of one process.

    The state holds the step and the run's id. An optimizer whose state comes from a checkpoint therefore
    continues that run at that step, and one that goes back to an earlier state has the run go back.

    Args:
        task: the name of what is trained.
        advisor: the connection to the daemon. Default: that of `mlrs.run`.
        accumulation_steps: the number of micro-batches, each with a call of `update`, in a step. The mean of
            their losses is observed; `advised` puts the optimizer into `optax.MultiSteps`. The learning rate
            of a call that updates nothing is 0.
        options: those of `mlrs.run`, such as `horizon`.

    Attributes:
        accumulation_steps: as given.
        traces: how often JAX has traced the schedule with a loss: a few times, however many steps there are.

    Raises:
        InvalidArgumentError: an argument is wrong.
        UsageError: from its methods: there is no loss, or one that is constant; the optimizer calls it as a
            schedule of the step alone; or it runs under `jax.vmap` or in a job of several processes.
    """

    def __init__(
        self,
        task: str,
        *,
        advisor: mlrs.Advisor | None = None,
        accumulation_steps: int = 1,
        **options: Unpack[RunOptions],
    ) -> None:
        self.accumulation_steps = whole("accumulation_steps", accumulation_steps, low=1)
        self.traces = 0
        self._has_warned = False

        def make(run_id: str | None) -> mlrs.Run:
            own = options if run_id is None else options | {"id": run_id}
            run = mlrs.run(task, advisor=advisor, **own)
            run.describe()
            return run

        self._asking = Asking(make)
        self._ask = self._asker()

    @property
    def run(self) -> mlrs.Run:
        """The run that the last update asked, or the next one will."""
        return self._asking.run

    def init(self) -> AdvisedState:
        """Return the state of a training's beginning."""
        name = np.zeros(ID_SIZE, np.uint8)
        letters = np.frombuffer(self.run.id.encode("ascii"), np.uint8)
        name[: len(letters)] = letters
        count, micro_step = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32)  # two arrays, for donation
        return AdvisedState(count, jnp.asarray(name), micro_step, jnp.zeros([], _dtype()))

    def __call__(self, state: AdvisedState, **extra_args: Any) -> jax.Array:
        """Return the learning rate for an update: 0 where there is no loss, as when a state is made.

        Args:
            state: of this schedule.
            extra_args: those of the optimizer's `update`; of them, `value` is the training loss, a scalar.
        """
        if not isinstance(state, AdvisedState):
            raise UsageError(
                "the optimizer takes AdvisedLR for a function of the step. Make it with mlrs.optax.advised("
                "optax.adamw, learning_rate) or optax.inject_hyperparams(optax.adamw)(learning_rate)"
            )
        if "value" not in extra_args:
            return jnp.zeros([], _dtype())
        loss = self._checked(state, extra_args["value"])
        if self.accumulation_steps == 1:
            return self._ask(state.run, state.count, loss)
        mean = (state.loss_sum + loss) / self.accumulation_steps
        return jax.lax.cond(
            self._is_last(state),
            lambda: self._ask(state.run, state.count, mean),
            lambda: jnp.zeros([], _dtype()),
        )

    def update(self, state: AdvisedState, **extra_args: Any) -> AdvisedState:
        """Return the state after an update.

        Raises:
            UsageError: there is no loss.
        """
        if "value" not in extra_args:
            raise UsageError(
                "the learning rate depends on the training loss: optimizer.update(grads, state, params,"
                " value=loss)"
            )
        if self.accumulation_steps == 1:
            return state._replace(count=state.count + 1)
        is_last = self._is_last(state)
        loss_sum = state.loss_sum + jnp.asarray(extra_args["value"], _dtype()).reshape(())
        return state._replace(
            count=jnp.where(is_last, state.count + 1, state.count),
            micro_step=jnp.where(is_last, 0, state.micro_step + 1),
            loss_sum=jnp.where(is_last, 0.0, loss_sum),
        )

    def search(
        self,
        step: Callable[[Any, Any], Any],
        state: Any,
        batches: Iterable[Any],
        *,
        start: str | None = None,
        always: bool = False,
        charge_steps: bool = False,
        timeout_s: float | None = None,
    ) -> mlrs.SearchResult:
        """Find the learning rate to begin with, in a few short trials; call it before the loop.

        The state stays as it is, and is not donated: each trial has a copy of it.

        Args:
            step: the training step, compiled or not: `step(state, batch)` returns a tuple, the new state
                first. Its `optimizer.update` is where a trial gets its learning rate and its loss.
            state: what the training begins with: any tree of arrays, with the optimizer's state in it.
            batches: training batches; with accumulation, micro-batches.
            start: as for `Run.search`, like all other arguments.
            always: as for `Run.search`.
            charge_steps: as for `Run.search`.
            timeout_s: as for `Run.search`.

        Returns:
            The learning rate, and the trials; or why no search was made, such as that the state is that of
            a training that has begun.

        Raises:
            UsageError: the state has no part of this schedule, or a step asked for no learning rate.
            InvalidArgumentError: there are too few batches.
            MlrsError: see `Run.search`.
        """
        own = first_state(state, AdvisedState)
        if int(own.count) > 0:
            self._asking.follow(_name(own.run), int(own.count))
        loop = Trials(self._asking, step, state, batches, self.accumulation_steps)
        return self.run.search(
            loop, start=start, always=always, charge_steps=charge_steps, timeout_s=timeout_s
        )

    def finish(self, *, metric: float | None = None, higher_is_better: bool = False) -> None:
        """Wait for all compiled updates, and mark the run as finished; call it when training is complete.

        Args:
            metric: as for `Run.finish`.
            higher_is_better: as for `Run.finish`.

        Raises:
            UsageError: the schedule was traced, and no update has asked for a learning rate.
            MlrsError: see `Run.finish`.
        """
        jax.effects_barrier()
        if self.traces and not self._asking.asked:
            raise UsageError(
                f"the update was traced {self.traces} times, and has never asked for a learning rate: the"
                " compiled function was not called, or its result does not depend on the update"
            )
        self.run.finish(metric=metric, higher_is_better=higher_is_better)

    def _is_last(self, state: AdvisedState) -> jax.Array:
        return state.micro_step == self.accumulation_steps - 1

    def _checked(self, state: AdvisedState, value: Any) -> jax.Array:
        """Return the loss of an update, once it is known to be one; count the trace."""
        if jax.process_count() > 1:
            raise UsageError(
                "AdvisedLR works in one process. In a job of several, let the first one call run.next_lr, and"
                " set what it broadcasts with mlrs.optax.set_learning_rate"
            )
        if jnp.size(value) != 1:
            raise InvalidArgumentError(
                f"value must be the training loss, a scalar; has shape {jnp.shape(value)}", field="value"
            )
        if isinstance(state.count, jax.core.Tracer):
            if not isinstance(value, jax.core.Tracer):
                raise UsageError(
                    f"value is a constant of the compiled function ({value!r:.50}): pass the loss of the"
                    " batch"
                )
            self._count_trace()
        return jnp.asarray(value, _dtype()).reshape(())

    def _count_trace(self) -> None:
        self.traces += 1
        is_each_step = self.traces >= MANY_TRACES and self.traces * 2 > self._asking.asked
        if is_each_step and not self._has_warned:
            self._has_warned = True
            _logger.warning(
                "%s: JAX has traced the update %d times in %d steps. Something that changes from step to"
                " step, such as a Python number, is a constant or a static argument of the compiled function",
                self.run.id,
                self.traces,
                self._asking.asked,
            )

    def _asker(self) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
        """Return a function for compiled code: (id, step, loss) -> learning rate."""

        def answer(run: Any, step: Any, loss: Any) -> Any:
            rate = self._asking.learning_rate(_name(run), int(step), float(loss))
            return np.asarray(rate, _dtype())

        def ask(run: jax.Array, step: jax.Array, loss: jax.Array) -> jax.Array:
            result = jax.ShapeDtypeStruct((), _dtype())
            return io_callback(answer, result, run, step, loss, ordered=True)

        def refuse(*_: Any) -> Any:
            raise UsageError(
                "AdvisedLR advises one training, not a population under jax.vmap. Use advisor.sweep for the"
                " population, and mlrs.optax.set_learning_rate for its learning rates"
            )

        guarded: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] = custom_vmap(ask)
        cast("Any", guarded).def_vmap(refuse)
        return guarded


def _dtype() -> Any:
    """Return the type of losses and learning rates: float32, or float64 where that is enabled."""
    return jnp.result_type(float)


def _name(run: Any) -> str:
    """Return the id of a run that a state names."""
    return np.asarray(run).tobytes().rstrip(b"\0").decode("ascii")
