"""Train scikit-learn's SGDClassifier on digits, batch by batch: advised, or at a constant rate.

python examples/train_sklearn.py
"""

from __future__ import annotations

from argparse import ArgumentParser

import numpy as np
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from support.digits import load_split, report

import mlrs
from mlrs.sklearn import AdvisedLR


def main() -> None:
    """Train and report."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--schedule", choices=["advised", "constant"], default="advised")
    parser.add_argument("--eta0", type=float, default=0.01, help="the constant rate; 0.01 is the default one")
    parser.add_argument("--search", action="store_true", help="search for the rate to begin with")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--address", help="a daemon, HOST:PORT; default: the one of mlrs.connect()")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    (images, labels), test = load_split(arguments.seed)
    model = SGDClassifier(
        loss="log_loss", learning_rate="constant", eta0=arguments.eta0, random_state=arguments.seed
    )
    chosen = rng.integers(len(labels), size=(arguments.steps, arguments.batch_size))
    batches = [(images[indexes], labels[indexes]) for indexes in chosen]
    with mlrs.connect(arguments.address) as advisor:
        policy = "constant" if arguments.schedule == "constant" else None
        advised = AdvisedLR(
            model,
            "digits-sgd",
            advisor=advisor,
            horizon=arguments.steps,
            policy=policy,
            base_lr=None if policy is None else arguments.eta0,
            memory=False,
        )
        if arguments.search:
            report(search=str(advised.search(batches[:20], classes=range(10))))
        for x, y in batches:
            advised.partial_fit(x, y, classes=range(10))
        advised.finish(metric=model.score(*test), higher_is_better=True)
    report(
        train_loss=float(log_loss(labels, model.predict_proba(images))),
        test_loss=float(log_loss(test[1], model.predict_proba(test[0]))),
        test_accuracy=float(model.score(*test)),
        last_eta0=model.eta0,
    )


if __name__ == "__main__":
    main()
