"""Train logistic regression on digits in plain NumPy, advised by a daemon or by a hand-made schedule.

python examples/train_numpy.py
"""

from __future__ import annotations

import time
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray
from support.digits import Split, load_split, parse_arguments, report
from support.schedules import scheduled_lr

import mlrs

Weights = NDArray[np.float64]


def loss_and_gradient(weights: Weights, data: Split) -> tuple[float, Weights]:
    """Return the mean cross-entropy in nats, and its gradient; weights are (65, 10), bias last."""
    images, labels = data
    inputs = np.hstack([images, np.ones((len(images), 1))])
    scores = inputs @ weights
    scores -= scores.max(axis=1, keepdims=True)
    log_softmax = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    error = np.exp(log_softmax)
    error[np.arange(len(labels)), labels] -= 1
    return float(-log_softmax[np.arange(len(labels)), labels].mean()), inputs.T @ error / len(labels)


def main() -> None:
    """Train and report."""
    arguments = parse_arguments(__doc__)
    rng = np.random.default_rng(arguments.seed)
    train, test = load_split(arguments.seed)
    weights = np.zeros((65, 10))
    advice_s = 0.0
    with ExitStack() as stack:
        if arguments.schedule == "advised":
            advisor = stack.enter_context(mlrs.connect(arguments.address))
            settings = {"horizon": arguments.steps, "num_classes": 10, "optimizer": "sgd"}
            run = stack.enter_context(advisor.run(arguments.task, id=arguments.run_id, **settings))
        for step in range(arguments.steps):
            batch = rng.integers(len(train[1]), size=arguments.batch_size)
            loss, gradient = loss_and_gradient(weights, (train[0][batch], train[1][batch]))
            start = time.perf_counter()
            if arguments.schedule == "advised":
                lr = run.next_lr(step, loss)
            else:
                lr = scheduled_lr(arguments.schedule, step, arguments.steps)
            advice_s += time.perf_counter() - start
            weights -= lr * gradient
            report(step=step, loss=loss, lr=lr)
        if arguments.schedule == "advised":
            run.finish()
    scores = np.hstack([test[0], np.ones((len(test[0]), 1))]) @ weights
    report(
        train_loss=loss_and_gradient(weights, train)[0],
        test_accuracy=float((scores.argmax(axis=1) == test[1]).mean()),
        advice_s=advice_s / arguments.steps,
    )


if __name__ == "__main__":
    main()
