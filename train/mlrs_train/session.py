"""One training in one folder: start, checkpoint, interrupt, resume, finish.

    checkpoint.pt       everything that later steps depend on
    log.jsonl           the log
    tensorboard/        the same as TensorBoard events
    curves.png          the same as a picture
    model.safetensors   the model, once finished

The model and the log depend on the settings, the data and the versions of the libraries alone: not
on interruptions, on how often checkpoints are taken, or on the time.
"""

from __future__ import annotations

import importlib.metadata
import platform
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console

from mlrs_core.models.checkpoint import digest_of, dump_model
from mlrs_train.checkpoint import load_checkpoint, replace_file, save_checkpoint
from mlrs_train.curves import draw_curves
from mlrs_train.errors import CheckpointError, NoTrainingError, SettingChangedError, TrainingExistsError
from mlrs_train.journal import TrainingLog, read_records
from mlrs_train.method import Settings, TrainingMethod
from mlrs_train.methods import SETTINGS, start_training
from mlrs_train.progress import ProgressBar


@dataclass(frozen=True)
class Folder:
    """The files of a training."""

    path: Path
    """The folder."""

    @property
    def checkpoint(self) -> Path:
        """Everything that later steps depend on."""
        return self.path / "checkpoint.pt"

    @property
    def log(self) -> Path:
        """The log as JSON lines."""
        return self.path / "log.jsonl"

    @property
    def events(self) -> Path:
        """The log as TensorBoard events, a folder."""
        return self.path / "tensorboard"

    @property
    def curves(self) -> Path:
        """The log as a picture."""
        return self.path / "curves.png"

    @property
    def model(self) -> Path:
        """The model."""
        return self.path / "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """How a training ended, for now."""

    steps_done: int
    """Steps made, those before a resumption included."""
    steps_total: int
    """Steps to make in all."""
    digest: str | None
    """The digest of the model; `None` while it is unfinished."""


class TrainingSession:
    """A training in its folder, ready to run."""

    def __init__(
        self, folder: Folder, settings: Settings, method: TrainingMethod, *, log_size: int = 0
    ) -> None:
        """Build it from a method at the step at which its log has this many bytes."""
        self.folder = folder
        self.settings = settings
        self.method = method
        self._log_size = log_size

    def run(self, console: Console, *, checkpoint_every: int) -> TrainingOutcome:
        """Train to the end, or until SIGINT or SIGTERM; write a checkpoint either way.

        Args:
            console: where the progress bar goes.
            checkpoint_every: steps between checkpoints.

        Raises:
            DivergedError: a loss is not finite; the last checkpoint stays.
        """
        torch.set_num_threads(1)  # more would sum in another order, and share small tensors badly
        steps = self.method.steps_done
        with TrainingLog(self.folder.log, self.folder.events, size=self._log_size, steps=steps) as journal:
            self._save(journal)
            bar = ProgressBar(console, total=self.method.steps_total, done=steps)
            with bar, _interruptions() as interrupted:
                while self.method.steps_done < self.method.steps_total and not interrupted():
                    record = self.method.advance()
                    if record is not None:
                        journal.write(record, self.method.steps_done)
                    bar.step(record, total=self.method.steps_total)
                    if self.method.steps_done % checkpoint_every == 0:
                        self._save(journal)
            self._save(journal)
        return self._finish()

    def _save(self, journal: TrainingLog) -> None:
        contents = {
            "method": self.settings.method,
            "settings": self.settings.to_json(),
            "steps": self.method.steps_done,
            "log_size": journal.sync(),
            "state": self.method.state_dict(),
        }
        save_checkpoint(self.folder.checkpoint, contents)

    def _finish(self) -> TrainingOutcome:
        """Draw the curves, and write the model if the training is finished."""
        done, total = self.method.steps_done, self.method.steps_total
        title = f"Meta-training by {self.settings.method}: {done:,} of {total:,} steps"
        draw_curves(read_records(self.folder.log), self.folder.curves, title=title)
        digest = None
        if done == total:
            data = dump_model(self.method.model(provenance(self.settings, steps=done)))
            replace_file(self.folder.model, data)
            digest = digest_of(data)
        return TrainingOutcome(steps_done=done, steps_total=total, digest=digest)


def start_session(path: Path, settings: Settings) -> TrainingSession:
    """Return a new training in a folder, which is made if need be.

    Raises:
        InvalidFieldError: a setting names something unknown.
        RunExistsError: the folder holds a training already.
    """
    folder = Folder(path)
    for file in (folder.checkpoint, folder.log, folder.events, folder.model):
        if file.exists():
            raise TrainingExistsError(f"{path} holds a training already ({file.name})")
    method = start_training(settings)
    path.mkdir(parents=True, exist_ok=True)
    return TrainingSession(folder, settings, method)


def resume_session(path: Path, method: str | None, given: Mapping[str, Any]) -> TrainingSession:
    """Return the training in a folder, where its last checkpoint left it.

    Args:
        path: the folder.
        method: the method's name, if the user gave one.
        given: the settings that the user gave; they must be those of the training.

    Raises:
        NoRunError: the folder holds no training.
        CheckpointError: its checkpoint cannot be read.
        SettingChangedError: a given setting differs.
    """
    folder = Folder(path)
    if not folder.checkpoint.exists():
        raise NoTrainingError(f"{path} holds no training to resume ({folder.checkpoint.name} is missing)")
    saved = load_checkpoint(folder.checkpoint)
    for name, value in {**given, "method": method or saved["method"]}.items():
        was = saved["method"] if name == "method" else saved["settings"].get(name)
        if value != was:
            raise SettingChangedError(name, f"{path} was started with {was!r}, not {value!r}")
    settings = SETTINGS[saved["method"]](**saved["settings"])
    training = start_training(settings)
    try:
        training.load_state_dict(saved["state"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{folder.checkpoint} does not fit its own settings: {error}") from error
    return TrainingSession(folder, settings, training, log_size=saved["log_size"])


def provenance(settings: Settings, *, steps: int) -> dict[str, Any]:
    """Return how a model was made, as JSON values: enough to make it again."""
    libraries = ("mlrs", "torch", "numpy", "scikit-learn")
    versions = {name: importlib.metadata.version(name) for name in libraries}
    return {
        "method": settings.method,
        "command": command_of(settings),
        "settings": settings.to_json(),
        "steps": steps,
        "versions": {**versions, "python": platform.python_version()},
        "machine": platform.machine(),
    }


def command_of(settings: Settings) -> str:
    """Return the command that trains with these settings, without its folder."""
    words = ["mlrs", "train", settings.method]
    for name, value in settings.to_json().items():
        if value is None or value == []:
            continue
        shown = ",".join(value) if isinstance(value, list) else str(value)
        words += [f"--{name.replace('_', '-')}", shown]
    return " ".join(words)


@contextmanager
def _interruptions() -> Iterator[Callable[[], bool]]:
    """Let SIGINT and SIGTERM be asked for between steps; a second one has its default effect.

    Elsewhere than in the main thread Python takes no signals, and nothing is asked for.
    """
    asked = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {int(number): signal.getsignal(number) for number in signals}

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.set()
        signal.signal(number, before[number])

    here = threading.current_thread() is threading.main_thread()
    if here:
        for number in signals:
            signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        if here:
            for number in signals:
                signal.signal(number, before[number])
