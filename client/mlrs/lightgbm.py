"""The adapter for LightGBM: a callback that sets the learning rate of each boosting round.

    import lightgbm

    from mlrs.lightgbm import AdvisedLR

    data = lightgbm.Dataset(X_train, y_train)
    booster = lightgbm.train({"objective": "binary"}, data, 100, callbacks=[AdvisedLR("churn")])

It may use LightGBM, and what is public in the client.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack, cast

from lightgbm import Booster
from lightgbm.callback import CallbackEnv

import mlrs
from mlrs.adapters import RunOptions
from mlrs.errors import InvalidArgumentError, UsageError
from mlrs.types import RunInfo

__all__ = ["AdvisedLR"]

MAX_LR = 1.0
"""The upper bound of the learning rate, unless another is given: a tree that is added as it was fitted."""

DEFAULT_LR = 0.1
"""LightGBM's default."""
LEARNING_RATES = ("learning_rate", "eta", "shrinkage_rate")
"""What its parameter is called."""


class AdvisedLR:
    """Sets the learning rate of each boosting round to what a daemon advises for the loss before that round.

    The step of a run is a round. Its loss is the training metric before it, which LightGBM computes from the
    scores that it keeps; the training data need not be among `valid_sets`.

    The run is finished with the last round of its horizon, which is that of the training unless one is given.
    After early stopping, call `finish`. With an `id`, a training that begins with a saved booster
    (`init_model`) continues the run of that id at the rounds of the booster.

    Args:
        task: the name of what is trained; see `Advisor.run`.
        advisor: the daemon. Default: the one that `mlrs.run` finds.
        metric: the name of the metric that is the loss; lower must be better. Default: the first such one.
        validation: the name of validation data in `valid_sets`, whose metric the run is told, too: as
            `Run.validate`. By it the memory of the task compares runs, instead of by the training loss, which
            says little of trees. It is computed once more for that.
        options: those of `Advisor.run`. `max_lr` is 1 and `optimizer` is `sgd` where they are not given.

    Raises:
        UsageError: LightGBM computes no metric where lower is better, or `cv` trains several boosters.
        InvalidArgumentError: there is no metric of that name, or higher values of it are better.
        MlrsError: as `Run.next_lr`.
    """

    order = 10
    """Where it comes among callbacks, as LightGBM's own that sets parameters."""
    before_iteration = True
    """Whether it is called before each round."""

    def __init__(
        self,
        task: str,
        *,
        advisor: mlrs.Advisor | None = None,
        metric: str | None = None,
        validation: str | None = None,
        **options: Unpack[RunOptions],
    ) -> None:
        self._task, self._advisor, self._options = task, advisor, options
        self._metric, self._validation = metric, validation
        self._run: mlrs.Run | None = None

    @property
    def run(self) -> mlrs.Run | None:
        """The run of the newest training; `None` before the first."""
        return self._run

    def __call__(self, env: CallbackEnv) -> None:
        """Observe the training metric before a round, and set the learning rate of the round."""
        if not isinstance(env.model, Booster):
            raise UsageError("cv trains several boosters at once; AdvisedLR is for train")
        before = 0 if self._options.get("id") is not None else env.begin_iteration  # rounds of another run
        horizon = self._options.get("horizon") or env.end_iteration - before
        if env.iteration == env.begin_iteration:
            self._run = self._begun(env, horizon)
        run = cast("mlrs.Run", self._run)
        step = env.iteration - before
        metric, loss = self._loss(env.model.eval_train())
        if self._validation is not None:
            run.validate(step, self._validation_loss(env.model.eval_valid(), metric))
        lr = run.next_lr(step, loss)
        env.model.reset_parameter({"learning_rate": lr})
        env.params["learning_rate"] = lr
        if step == horizon - 1:
            run.finish()

    def finish(self, *, metric: float | None = None, higher_is_better: bool = False) -> RunInfo | None:
        """Mark the run as finished, after early stopping. See `Run.finish`."""
        if self._run is None:
            return None
        return self._run.finish(metric=metric, higher_is_better=higher_is_better)

    def _begun(self, env: CallbackEnv, horizon: int) -> mlrs.Run:
        read: RunOptions = {"optimizer": "sgd", "momentum": 0.0, "max_lr": MAX_LR, "horizon": horizon}
        run = mlrs.run(self._task, advisor=self._advisor, **cast("RunOptions", {**read, **self._options}))
        given = [env.params[name] for name in LEARNING_RATES if name in env.params]
        run.describe(default_lr=given[0] if given else DEFAULT_LR)
        return run

    def _loss(self, results: Iterable[Any]) -> tuple[str, float]:
        """Return the name of the metric that is the loss, and its value."""
        found = {name: (value, is_rising) for _, name, value, is_rising in results}
        if self._metric is None:
            falling = [(name, float(value)) for name, (value, is_rising) in found.items() if not is_rising]
            if not falling:
                raise UsageError("there is no metric where lower is better; give one such as 'l2' as metric")
            return falling[0]
        if self._metric not in found:
            names = ", ".join(found) or "none"
            raise InvalidArgumentError(
                f"metric: there is no {self._metric!r} among those that LightGBM computes: {names}",
                field="metric",
            )
        value, is_rising = found[self._metric]
        if is_rising:
            raise InvalidArgumentError(
                f"metric: higher values of {self._metric} are better, and a loss falls; take another",
                field="metric",
            )
        return self._metric, float(value)

    def _validation_loss(self, results: Iterable[Any], metric: str) -> float:
        """Return a metric of the validation data."""
        found = {data: value for data, name, value, _ in results if name == metric}
        if self._validation not in found:
            raise InvalidArgumentError(
                f"validation: there is no {self._validation!r} among the valid_sets:"
                f" {', '.join(found) or 'none'}",
                field="validation",
            )
        return float(found[self._validation])
