"""The adapter for XGBoost: a callback that sets the learning rate of each boosting round.

    import xgboost

    from mlrs.xgboost import AdvisedLR

    data = xgboost.DMatrix(X_train, y_train)
    callback = AdvisedLR("churn", horizon=100)
    booster = xgboost.train(parameters, data, 100, evals=[(data, "train")], callbacks=[callback])

It may use XGBoost, and what is public in the client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

from xgboost import Booster, collective
from xgboost.callback import TrainingCallback

import mlrs
from mlrs.adapters import RunOptions, whole
from mlrs.errors import InvalidArgumentError, UsageError

__all__ = ["AdvisedLR"]

MAX_LR = 1.0
"""The upper bound of the learning rate, unless another is given: a tree that is added as it was fitted."""
DEFAULT_LR = 0.3
"""XGBoost's default."""
RISING = ("auc", "aucpr", "map", "ndcg", "pre")
"""How the names of XGBoost's metrics begin that are higher where a model is better."""


class AdvisedLR(TrainingCallback):
    """Sets the learning rate of each boosting round to what a daemon advises for the loss after the last one.

    The step of a run is a round. Its loss is the training metric after it, which is also the loss before the
    next round: so the advice of a step is the learning rate of the next round. The first round is grown at
    the learning rate of the parameters, and the advice of the last one is not used.

    The run is finished when the training ends, unless that is before the horizon. With an `id`, a training
    that begins with a saved booster (`xgb_model`) continues the run of that id at the booster's rounds.

    Args:
        task: the name of what is trained; see `Advisor.run`.
        advisor: the daemon. Default: the one that `mlrs.run` finds.
        data: the name of the training data in `evals`. Default: the first whose name begins with `train`,
            else the first.
        metric: the name of the metric that is the loss; lower must be better. Default: the first.
        validation: the name of validation data in `evals`, whose metric the run is told, too: as
            `Run.validate`. By it the memory of the task compares runs, instead of by the training loss, which
            says little of trees.
        options: those of `Advisor.run`. `horizon` is the number of rounds, with those of a saved booster.
            `max_lr` is 1 and `optimizer` is `sgd` where they are not given.

    Raises:
        UsageError: there is no metric to read, as `evals` has no training data; several workers train; or
            `cv` trains several boosters.
        InvalidArgumentError: there is no such metric, or higher values of it are better.
        MlrsError: as `Run.next_lr`.
    """

    def __init__(
        self,
        task: str,
        *,
        advisor: mlrs.Advisor | None = None,
        data: str | None = None,
        metric: str | None = None,
        validation: str | None = None,
        **options: Unpack[RunOptions],
    ) -> None:
        super().__init__()
        self._task, self._advisor, self._options = task, advisor, options
        self._data, self._metric, self._validation = data, metric, validation
        self._run: mlrs.Run | None = None
        self._first = 0  # rounds of the booster before this training

    @property
    def run(self) -> mlrs.Run | None:
        """The run of the newest training; `None` before the first."""
        return self._run

    def before_training(self, model: Any) -> Any:
        """Begin a run, or continue one at the rounds that a saved booster has."""
        if not isinstance(model, Booster):
            raise UsageError("cv trains several boosters at once; AdvisedLR is for train")
        if collective.is_distributed():
            raise UsageError("several workers train, and each would have a run of its own; train with one")
        rounds = whole("rounds", model.num_boosted_rounds(), low=0)
        self._first = rounds if self._options.get("id") is not None else 0
        read: RunOptions = {"optimizer": "sgd", "momentum": 0.0, "max_lr": MAX_LR}
        if self._first:
            read["resume_from"] = self._first
        options = cast("RunOptions", {**read, **self._options})
        self._run = mlrs.run(self._task, advisor=self._advisor, **options)
        given = re.search(r'"(?:eta|learning_rate)":"([^"]+)"', model.save_config())
        self._run.describe(default_lr=float(given[1]) if given else DEFAULT_LR)
        if self._first and (lr := self._run.state().last_lr) is not None:
            model.set_param("learning_rate", lr)
        return model

    def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Any]) -> bool:
        """Observe the training metric of a round, and set the learning rate of the next one."""
        data = _chosen(evals_log, self._data, "data", "evals=[(train_data, 'train'), ...]", prefix="train")
        metric, loss = self._loss(evals_log[data])
        if self._validation is not None:
            other = _chosen(evals_log, self._validation, "validation", "")
            self._begun.validate(self._first + epoch, float(evals_log[other][metric][-1]))
        model.set_param("learning_rate", self._begun.next_lr(self._first + epoch, loss))
        return False

    def after_training(self, model: Any) -> Any:
        """Finish the run, unless it is short of its horizon and was not stopped early."""
        run = self._begun
        horizon = self._options.get("horizon")
        has_stopped_early = model.attr("best_iteration") is not None
        if horizon is None or run.state().step >= horizon or has_stopped_early:
            run.finish()
        else:
            run.detach()
        return model

    @property
    def _begun(self) -> mlrs.Run:
        return cast("mlrs.Run", self._run)  # since `before_training`

    def _loss(self, metrics: Mapping[str, Sequence[Any]]) -> tuple[str, float]:
        """Return the name of the metric that is the loss, and its newest value."""
        metric = _chosen(metrics, self._metric, "metric", "eval_metric= a loss")
        if metric.startswith(RISING):
            raise InvalidArgumentError(
                f"metric: higher values of {metric} are better, and a loss falls; add a loss such as"
                " 'logloss' to eval_metric, and name it as metric=",
                field="metric",
            )
        return metric, float(metrics[metric][-1])


def _chosen(given: Mapping[str, Any], name: str | None, field: str, way_out: str, prefix: str = "") -> str:
    """Return one of the given names: the named one, else the first with a prefix, else the first."""
    if not given:
        raise UsageError(f"there is no training metric to read: give {way_out}")
    if name is None:
        return next((one for one in given if one.startswith(prefix)), next(iter(given)))
    if name not in given:
        raise InvalidArgumentError(f"{field}: there is no {name!r}, only {', '.join(given)}", field=field)
    return name
