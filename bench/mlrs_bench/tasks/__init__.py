"""The tasks of the benchmark. No model was meta-trained on them by evolution.

(`paper` was meta-trained by another method, on digits among others.) To add one, write a function
`() -> Task` and enter it in `TASKS`. Data is what comes with Python and scikit-learn, or generated;
only CIFAR-10 needs a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mlrs_bench.errors import NotGivenError, UnknownNameError
from mlrs_bench.task import Task
from mlrs_bench.tasks.cifar10 import cifar10_cnn_bn, cifar10_resnet
from mlrs_bench.tasks.digits import (
    digits_autoencoder,
    digits_cnn,
    digits_cnn_noisy,
    digits_cnn_tenth,
    linear,
)
from mlrs_bench.tasks.kinds import adding_gru, coordinates_sine, digits_mixer, ratings_factors
from mlrs_bench.tasks.large import cifar10_resnet18, text_transformer_5m
from mlrs_bench.tasks.tables import tabular_classification, tabular_regression
from mlrs_bench.tasks.task_file import load_task_file
from mlrs_bench.tasks.text import char_lstm, char_transformer

__all__ = ["CIFAR10_TASKS", "LARGE_CIFAR10_TASKS", "LARGE_TASKS", "TASKS", "choose_tasks", "collect_tasks"]

TASKS: dict[str, Callable[[], Task]] = {
    "digits-cnn": digits_cnn,
    "digits-cnn-noisy": digits_cnn_noisy,
    "digits-cnn-tenth": digits_cnn_tenth,
    "digits-autoencoder": digits_autoencoder,
    "char-lstm": char_lstm,
    "char-transformer": char_transformer,
    "tabular-regression": tabular_regression,
    "tabular-classification": tabular_classification,
    "linear": linear,
    "ratings-factors": ratings_factors,
    "coordinates-sine": coordinates_sine,
    "adding-gru": adding_gru,
    "digits-mixer": digits_mixer,
}
"""The tasks whose data is always there, by name."""
CIFAR10_TASKS: dict[str, Callable[[Path, Path], Task]] = {
    "cifar10-cnn-bn": cifar10_cnn_bn,
    "cifar10-resnet": cifar10_resnet,
}
"""The tasks that need the file of CIFAR-10; they take it, and a folder for decoded images."""
LARGE_TASKS: dict[str, Callable[[], Task]] = {"text-transformer-5m": text_transformer_5m}
"""Tasks whose training takes minutes: they are run when they are named only."""
LARGE_CIFAR10_TASKS: dict[str, Callable[[Path, Path], Task]] = {"cifar10-resnet18": cifar10_resnet18}
"""The same, for those that need the file of CIFAR-10."""


def collect_tasks(*, cache: Path, cifar10: Path | None = None, task_file: Path | None = None) -> list[Task]:
    """Return all tasks that can be run, those of the user's file last.

    Args:
        cache: the folder for what takes time to decode.
        cifar10: the file of CIFAR-10, if given.
        task_file: a Python file of tasks, if given.

    Raises:
        TaskFileError: the file of tasks cannot be used.
    """
    needing = {**CIFAR10_TASKS, **LARGE_CIFAR10_TASKS}
    tasks = [make() for make in (*TASKS.values(), *LARGE_TASKS.values())]
    if cifar10 is not None:
        tasks += [make(cifar10, cache) for make in needing.values()]
    if task_file is not None:
        tasks += load_task_file(task_file, taken=[*TASKS, *LARGE_TASKS, *needing])
    return tasks


def choose_tasks(tasks: Sequence[Task], names: Sequence[str]) -> list[Task]:
    """Return the tasks of these names; for none, all but the large ones.

    Raises:
        UnknownNameError: a name is unknown.
        NotGivenError: a task needs a file that was not given.
    """
    known = {task.name: task for task in tasks}
    for name in names:
        if name not in known and name in {**CIFAR10_TASKS, **LARGE_CIFAR10_TASKS}:
            raise NotGivenError("tasks", name, "--cifar10 FILE")
        if name not in known:
            raise UnknownNameError("tasks", name, known)
    large = {**LARGE_TASKS, **LARGE_CIFAR10_TASKS}
    return [known[name] for name in names or [name for name in known if name not in large]]
