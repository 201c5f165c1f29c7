"""Tasks of a user's own, in a Python file that defines `TASKS`."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from mlrs_bench.errors import TaskFileError
from mlrs_bench.task import Task

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""What a task's name looks like."""
MODULE = "mlrs_bench_task_file"
"""The name under which the file is imported."""


def load_task_file(path: Path, *, taken: Sequence[str]) -> list[Task]:
    """Return the tasks of a file. It is run: take files from people you trust.

    Args:
        path: a Python file that defines `TASKS`, a list of `Task`.
        taken: names that its tasks may not have.

    Raises:
        TaskFileError: the file cannot be run, defines no such list, or a name is bad or taken.
    """
    tasks = getattr(_run(path), "TASKS", None)
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, Task) for task in tasks):
        raise TaskFileError(f"{path}: must define TASKS, a list of one or more mlrs_bench.task.Task")
    seen = set(taken)
    for task in tasks:
        if not NAME.fullmatch(task.name):
            raise TaskFileError(
                f"{path}: task name {task.name!r} must be lowercase letters, digits and hyphens"
            )
        if task.name in seen:
            raise TaskFileError(f"{path}: task name {task.name!r} is taken; give it another")
        seen.add(task.name)
    return tasks


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise TaskFileError(f"{path}: must be a Python file, named .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module  # dataclasses and `inspect` look it up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise TaskFileError(f"{path}: cannot be run: {type(error).__name__}: {error}") from error
    return module
