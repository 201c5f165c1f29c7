"""The tasks that networks are meta-trained on.

To add one, write a function `(generator) -> BaseTask` and enter it in `TASKS`. It loads data that is on
the machine already (nothing is downloaded) and draws whatever it needs at random from the generator.
`module_task` makes a task of a torch module and three sets of examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from mlrs_core.errors import InvalidFieldError
from mlrs_train.tasks.digits import digits_cnn
from mlrs_train.tasks.task import BaseTask, Batch, Examples, Params, module_task
from mlrs_train.tasks.topics import topics_char

__all__ = ["TASKS", "BaseTask", "Batch", "Examples", "Params", "load_tasks", "module_task"]

TASKS: dict[str, Callable[[torch.Generator], BaseTask]] = {
    "digits-cnn": digits_cnn,
    "topics-char": topics_char,
}
"""The tasks by name."""

SPLIT_SEED = 0
"""Seeds what a task draws when it is loaded. Fixed, so that no training ever sees test examples."""


def load_tasks(names: Sequence[str]) -> dict[str, BaseTask]:
    """Return the tasks of these names, in this order.

    Raises:
        InvalidFieldError: a name is unknown.
    """
    if unknown := [name for name in names if name not in TASKS]:
        raise InvalidFieldError("tasks", f"{unknown[0]!r} is unknown; known: {', '.join(TASKS)}")
    return {name: TASKS[name](torch.Generator().manual_seed(SPLIT_SEED)) for name in names}
