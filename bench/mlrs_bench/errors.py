"""What can go wrong in the benchmark.

BenchError
├── UnknownNameError    an option names something that is not there; says what is
├── NotGivenError       what was asked for needs a file that was not given; says which option gives it
├── TaskFileError       a file of tasks cannot be used
├── DataFileError       a file of data, or a model, cannot be used
├── TrainingError       a training failed by a defect, not by its learning rates
└── DaemonStartError    the daemon did not start
"""

from __future__ import annotations

from collections.abc import Iterable


class BenchError(Exception):
    """Root of the benchmark's exceptions."""


class UnknownNameError(BenchError):
    """An option names something that is not there.

    Attributes:
        field: the option, as `tasks`.
    """

    def __init__(self, field: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"{name!r} is unknown; known: {', '.join(known)}")
        self.field = field


class NotGivenError(BenchError):
    """What was asked for needs a file that was not given.

    Attributes:
        field: the option that asked, as `tasks`.
    """

    def __init__(self, field: str, name: str, option: str) -> None:
        super().__init__(f"{name!r} needs {option}")
        self.field = field


class TaskFileError(BenchError):
    """A file of tasks cannot be used."""


class DataFileError(BenchError):
    """A file of data, or a model, cannot be used."""


class TrainingError(BenchError):
    """A training failed by a defect, not by its learning rates."""


class DaemonStartError(BenchError):
    """The daemon did not start."""
