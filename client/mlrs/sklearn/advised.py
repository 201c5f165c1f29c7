"""An estimator that is trained at advised learning rates. `mlrs.sklearn` shows how it is used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self, Unpack, cast

import mlrs
from mlrs.adapters import RunOptions, RunState
from mlrs.errors import InvalidArgumentError
from mlrs.sklearn.losses import CLASSIFYING, REGRESSING, batch_loss
from mlrs.sklearn.searching import Trials

Loss = Callable[[Any, Any, Any], Any]
Batch = tuple[Any, Any]


class AdvisedLR:
    """Trains an estimator batch by batch: each `partial_fit` at the rate that is advised for its loss.

    A step of the run is a call of `partial_fit`. The loss of its batch is computed before the update, with
    the estimator's own loss function; the advice becomes `eta0`, and holds for all samples of the batch, one
    after another.

    It can be pickled with the estimator, between two calls, and continues the run after it was loaded, with
    the daemon that `mlrs.run` finds. The options `on_advice`, and an `advisor`, are not pickled.

    Args:
        estimator: an `SGDClassifier` or `SGDRegressor` with `learning_rate="constant"`. It is trained in
            place: predict and score with it as ever.
        task: the name of what is trained; see `Advisor.run`.
        advisor: the daemon. Default: the one that `mlrs.run` finds.
        loss: a function of (estimator, X, y) that returns the loss of a batch, instead of the estimator's
            own. It must work before the first fit, too.
        options: those of `Advisor.run`; `horizon` is the number of `partial_fit` calls, if it is known.

    Raises:
        InvalidArgumentError: the estimator does not take its learning rate from `eta0`.
    """

    def __init__(
        self,
        estimator: Any,
        task: str,
        *,
        advisor: mlrs.Advisor | None = None,
        loss: Loss | None = None,
        **options: Unpack[RunOptions],
    ) -> None:
        _check(estimator, has_loss=loss is not None)
        self.estimator = estimator
        self._task, self._advisor, self._loss, self._options = task, advisor, loss, options
        self._run: mlrs.Run | None = None
        self._state: RunState | None = None  # to continue from

    @property
    def run(self) -> mlrs.Run | None:
        """The run; `None` before the first batch."""
        return self._run

    def partial_fit(
        self,
        X: Any,  # noqa: N803 # as scikit-learn has it
        y: Any,
        classes: Any = None,
        sample_weight: Any = None,
    ) -> Self:
        """Update the estimator with a batch, at the learning rate that is advised for its loss.

        Args:
            X: (n, features), as the estimator takes them.
            y: (n,).
            classes: all classes, at the first call for a classifier.
            sample_weight: (n,).

        Raises:
            MlrsError: as `Run.next_lr`.
        """
        run = self._begun(len(y))
        loss = self._loss_of(X, y, classes, sample_weight)
        self._fit(run.next_lr(run.state().step, loss), X, y, classes, sample_weight)
        return self

    def search(
        self, batches: Sequence[Batch], *, classes: Any = None, always: bool = False
    ) -> mlrs.SearchResult:
        """Find the learning rate to begin with, in a few short trials; call it before the first batch.

        The estimator, and NumPy's global random numbers, are as before afterwards.

        Args:
            batches: pairs of X and y, of which the trials take the first ones, again and again if there are
                few. Twenty do.
            classes: all classes, for a classifier.
            always: as for `Run.search`.

        Raises:
            InvalidArgumentError: there are no batches.
            MlrsError: as `Run.search`.
        """
        if not batches:
            raise InvalidArgumentError("batches: there are none", field="batches")

        def fit(lr: float, batch: Batch) -> None:
            self._fit(lr, *batch, classes, None)

        def loss_of(batch: Batch) -> float:
            return float(self._loss_of(*batch, classes, None))

        run = self._begun(len(batches[0][1]))
        return run.search(Trials(self.estimator, batches, fit, loss_of), always=always)

    def finish(
        self, *, metric: float | None = None, higher_is_better: bool = False
    ) -> mlrs.types.RunInfo | None:
        """Mark the run as finished. See `Run.finish`; a score of the estimator may be the metric."""
        if self._run is None:
            return None
        return self._run.finish(metric=metric, higher_is_better=higher_is_better)

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the run, for a checkpoint of your own; `{}` before the first batch."""
        state = self._state if self._run is None else self._run.state()
        return {} if state is None else asdict(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint, with the estimator as it was then.

        Raises:
            InvalidArgumentError: it holds no state.
            MlrsError: as `Run.resume`.
        """
        self._state = RunState.from_dict(state) if state else None
        self._run = None

    def __getstate__(self) -> dict[str, Any]:
        options = {name: value for name, value in self._options.items() if name != "on_advice"}
        own = {"_advisor": None, "_run": None, "_options": options}
        return {**self.__dict__, **own, "_state": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self.load_state_dict(state["_state"])

    def _begun(self, batch_size: int) -> mlrs.Run:
        """Return the run, which begins or continues at the first batch."""
        if self._run is None:
            read = {"optimizer": "sgd", "momentum": 0.0, "batch_size": batch_size}
            run = mlrs.run(self._task, advisor=self._advisor, **cast("RunOptions", {**read, **self._options}))
            run.describe(default_lr=self.estimator.eta0)
            if self._state is not None:
                run.resume(self._state)
            self._run = run
        return self._run

    def _loss_of(self, X: Any, y: Any, classes: Any, sample_weight: Any) -> Any:  # noqa: N803 # as above
        if self._loss is not None:
            return self._loss(self.estimator, X, y)
        return batch_loss(self.estimator, X, y, classes, sample_weight)

    def _fit(self, lr: float, X: Any, y: Any, classes: Any, sample_weight: Any) -> None:  # noqa: N803 # as above
        # An eta0 of 0, as at the end of a schedule, is refused; the least positive number moves no weight.
        self.estimator.set_params(eta0=max(lr, sys.float_info.min))
        more = (
            {"classes": classes}
            if classes is not None and hasattr(self.estimator, "decision_function")
            else {}
        )
        self.estimator.partial_fit(X, y, sample_weight=sample_weight, **more)


def _check(estimator: Any, *, has_loss: bool) -> None:
    """Check that an estimator takes its learning rate from `eta0`, and that its loss is known."""
    parameters = estimator.get_params() if hasattr(estimator, "get_params") else {}
    if not {"eta0", "learning_rate"} <= parameters.keys() or not hasattr(estimator, "partial_fit"):
        raise InvalidArgumentError(
            "estimator must be an SGDClassifier or SGDRegressor, which take a learning rate for each"
            f" partial_fit; is {type(estimator).__name__}",
            field="estimator",
        )
    if parameters["learning_rate"] != "constant":
        raise InvalidArgumentError(
            f"estimator: its learning_rate is {parameters['learning_rate']!r}, a schedule of its own, so that"
            " the advice would not be what it trains with; make it with learning_rate='constant'",
            field="estimator",
        )
    if not has_loss and parameters.get("loss") not in CLASSIFYING | REGRESSING:
        raise InvalidArgumentError(
            f"estimator: the loss {parameters.get('loss')!r} is not known here; give a function as loss=",
            field="estimator",
        )
