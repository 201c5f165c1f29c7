"""Boost trees with XGBoost or LightGBM at a constant learning rate, a cosine's, and advised ones.

python examples/train_boosting.py --library xgboost --data breast-cancer

Prints the loss on the training and the test data after each training, and at the end, for each schedule, the
geometric mean over the seeds of the test loss over that of the constant rate: a JSON object a line.
`remembered` is advised with the memory of the task, which compares its trainings, one for each seed, by
validation data.
"""

from __future__ import annotations

from argparse import ArgumentParser
from statistics import geometric_mean
from typing import Any

from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from support.digits import report

import mlrs

DEFAULT_LR = {"xgboost": 0.3, "lightgbm": 0.1}
"""What the libraries train with if they are told nothing."""
DATA = {"digits": load_digits, "breast-cancer": load_breast_cancer}


Examples = tuple[Any, Any]


def boost_xgboost(train: Examples, valid: Examples, rounds: int, callbacks: list[Any]) -> Any:
    """Train; return the function from features to the probabilities of the classes."""
    import xgboost

    classes = int(train[1].max()) + 1
    aim = (
        {"objective": "multi:softprob", "num_class": classes}
        if classes > 2
        else {"objective": "binary:logistic"}
    )
    data, other = xgboost.DMatrix(*train), xgboost.DMatrix(*valid)
    booster = xgboost.train(
        {**aim, "nthread": 1},
        data,
        num_boost_round=rounds,
        evals=[(data, "train"), (other, "valid")],
        verbose_eval=False,
        callbacks=callbacks,
    )
    return lambda features: booster.predict(xgboost.DMatrix(features))


def boost_lightgbm(train: Examples, valid: Examples, rounds: int, callbacks: list[Any]) -> Any:
    """Train; return the function from features to the probabilities of the classes."""
    import lightgbm

    classes = int(train[1].max()) + 1
    aim = {"objective": "multiclass", "num_class": classes} if classes > 2 else {"objective": "binary"}
    data = lightgbm.Dataset(*train)
    booster = lightgbm.train(
        {**aim, "num_threads": 1, "verbose": -1},
        data,
        num_boost_round=rounds,
        valid_sets=[lightgbm.Dataset(*valid, reference=data)],
        valid_names=["valid"],
        callbacks=callbacks,
    )
    return booster.predict


def callback(library: str, task: str, advisor: mlrs.Advisor, **options: Any) -> Any:
    """Return the callback for a library."""
    if library == "xgboost":
        from mlrs.xgboost import AdvisedLR

        return AdvisedLR(task, advisor=advisor, **options)
    from mlrs.lightgbm import AdvisedLR as ForLightGBM

    return ForLightGBM(task, advisor=advisor, **options)


def main() -> None:
    """Train and report."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=DEFAULT_LR, default="xgboost")
    parser.add_argument("--data", choices=DATA, default="breast-cancer")
    parser.add_argument("--schedule", nargs="*", default=["constant", "cosine", "advised", "remembered"])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--address", help="a daemon, HOST:PORT; default: the one of mlrs.connect()")
    arguments = parser.parse_args()
    boost = boost_xgboost if arguments.library == "xgboost" else boost_lightgbm
    features, labels = DATA[arguments.data](return_X_y=True)
    options: dict[str, dict[str, Any]] = {
        "cosine": {"policy": "cosine", "initial_lr": 2 * DEFAULT_LR[arguments.library]},
        "advised": {"memory": False},
        "remembered": {"validation": "valid"},
    }
    losses: dict[str, list[float]] = {schedule: [] for schedule in arguments.schedule}
    with mlrs.connect(arguments.address) as advisor:
        for seed in range(arguments.seeds):
            known, test_x, known_y, test_y = train_test_split(
                features, labels, test_size=0.25, random_state=seed, stratify=labels
            )
            train_x, valid_x, train_y, valid_y = train_test_split(
                known, known_y, test_size=0.2, random_state=seed, stratify=known_y
            )
            for schedule in arguments.schedule:
                callbacks = []
                if schedule != "constant":
                    task = f"{arguments.data}-{arguments.library}"
                    advised = {"horizon": arguments.rounds, **options[schedule]}
                    callbacks = [callback(arguments.library, task, advisor, **advised)]
                predict = boost((train_x, train_y), (valid_x, valid_y), arguments.rounds, callbacks)
                losses[schedule].append(float(log_loss(test_y, predict(test_x))))
                train_loss = float(log_loss(train_y, predict(train_x)))
                report(seed=seed, schedule=schedule, train_loss=train_loss, test_loss=losses[schedule][-1])
    for schedule, found in losses.items():
        if "constant" in losses:
            ratios = [loss / base for loss, base in zip(found, losses["constant"], strict=True)]
            report(schedule=schedule, over_constant=geometric_mean(ratios), better=sum(r < 1 for r in ratios))


if __name__ == "__main__":
    main()
