"""The log of a training: one JSON line per record, and the same as TensorBoard events.

The lines hold no times, and numbers to six digits: equal trainings write equal lines. A resumed
training first cuts the log back to where its checkpoint was taken.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from mlrs_train.errors import CheckpointError
from mlrs_train.method import LogRecord


class TrainingLog:
    """The log of one training, open for writing. A context manager."""

    def __init__(self, lines: Path, events: Path, *, size: int = 0, steps: int = 0) -> None:
        """Open the log.

        Args:
            lines: the file of JSON lines.
            events: the folder of TensorBoard events.
            size: the bytes of `lines` to keep.
            steps: the steps done by then; TensorBoard drops what a killed training logged after them.

        Raises:
            CheckpointError: `lines` is shorter than `size`.
        """
        self._lines = lines.open("ab")
        if self._lines.tell() < size:
            self._lines.close()
            raise CheckpointError(f"{lines} is shorter than it was at the checkpoint; it cannot be resumed")
        self._lines.truncate(size)
        self._events = SummaryWriter(events, purge_step=steps + 1)

    def write(self, record: LogRecord, steps: int) -> None:
        """Add a record, made at this number of steps of the whole training."""
        values = {name: value if value is None else _short(value) for name, value in record.values.items()}
        epoch = {} if record.epoch is None else {"epoch": record.epoch}
        line = {"task": record.task, "step": record.step, **epoch, **values}
        self._lines.write(json.dumps(line).encode() + b"\n")
        for name, value in values.items():
            if value is not None:
                tag = f"{record.task}/{name}"
                self._events.add_scalar(tag, value, global_step=steps)

    def sync(self) -> int:
        """Bring everything to the disk; return the bytes of the JSON lines."""
        self._lines.flush()
        os.fsync(self._lines.fileno())
        self._events.flush()
        return self._lines.tell()

    def __enter__(self) -> Self:
        """Return the journal."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close both files."""
        self._lines.close()
        self._events.close()


def read_records(lines: Path) -> list[LogRecord]:
    """Return the records in a file of JSON lines."""
    records = []
    for text in lines.read_text().splitlines():
        line = json.loads(text)
        position = {name: line.pop(name) for name in ("task", "step", "epoch") if name in line}
        records.append(LogRecord(**position, values=line))
    return records


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")
