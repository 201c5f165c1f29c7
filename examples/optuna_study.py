"""Search for hyperparameters with Optuna, and leave the learning rate to the daemon.

All trials of the study are runs of one task. Optuna chooses the width, the dropout and the weight decay. The
first trial searches for a learning rate, and the memory of the task chooses that of each later one, from how
the trials before it ended.

pip install optuna
python examples/optuna_study.py [--trials 12] [--steps 300]
"""

from __future__ import annotations

import argparse
import uuid

import optuna
import torch
from support.digits import load_split, report
from torch import nn
from torch.nn import functional

import mlrs
from mlrs.torch import AdvisedLR

BATCH_SIZE = 64


class Digits:
    """The digits, and the training of one trial."""

    def __init__(self, advisor: mlrs.Advisor, task: str, steps: int) -> None:
        self._advisor, self._task, self._steps = advisor, task, steps
        (images, labels), (held_out, answers) = load_split(0)
        self._images, self._labels = torch.tensor(images), torch.tensor(labels)
        self._held_out, self._answers = torch.tensor(held_out), torch.tensor(answers)

    def train(self, trial: optuna.Trial) -> float:
        """Train with the hyperparameters of a trial; return the accuracy on held-out digits."""
        torch.manual_seed(trial.number)
        width = trial.suggest_int("width", 16, 256, log=True)
        dropout = trial.suggest_float("dropout", 0.0, 0.5)
        decay = trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True)
        model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 10))
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=decay)
        run = self._advisor.run(self._task, horizon=self._steps, num_classes=10, batch_size=BATCH_SIZE)
        scheduler = AdvisedLR(optimizer, run)
        batches = [torch.randint(len(self._labels), (BATCH_SIZE,)) for _ in range(self._steps)]
        scheduler.search(model, self._loss, batches)  # made by the first trial only
        for rows in batches:
            loss = self._loss(model, rows)
            scheduler.observe(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        accuracy = self._accuracy(model)
        run.finish(metric=accuracy, higher_is_better=True)
        report(trial=trial.number, accuracy=accuracy, params=trial.params, why=run.why)
        return accuracy

    def _loss(self, model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(model(self._images[rows]), self._labels[rows])

    @torch.no_grad()
    def _accuracy(self, model: nn.Module) -> float:
        model.eval()
        return (model(self._held_out).argmax(1) == self._answers).double().mean().item()


def main() -> None:
    """Make the study, and print its best trial."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", help="the daemon, HOST:PORT; default: this user's own")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--task", help="the name of what is trained; default: a new one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    task = arguments.task or f"digits-study-{uuid.uuid4().hex[:6]}"
    with mlrs.connect(arguments.address) as advisor:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
        study.optimize(Digits(advisor, task, arguments.steps).train, n_trials=arguments.trials)
        best = advisor.task(task).best
    report(task=task, best_accuracy=study.best_value, best_params=study.best_params)
    if best is not None:
        report(best_learning_rate=best.learning_rate, schedule=best.policy)


if __name__ == "__main__":
    main()
