"""Files of observations that no daemon had received when a training ended, to be sent later.

The file is JSON. Losses, alignments, signals and validation losses, which must not change in any bit, are
base64 of little-endian float64: step by step, one loss of a run or the losses of all runs of a sweep. A file
without restored states is of version 3, and one that also lacks signals and validation losses of version 2:
older clients read these.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import secrets
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlrs.errors import InvalidArgumentError, MlrsError
from mlrs.ledger.ledger import Ledger
from mlrs.ledger.open_request import completed
from mlrs.values.signals import SIGNAL_NAMES, SignalRecord, Signals, ValidationRecord
from mlrs.values.types import RunConfig
from mlrs.wire import convert
from mlrs_proto import v1 as pb

FORMAT, VERSION = "mlrs-unsent", 4
"""The name and the newest version of the format."""
PLAIN, WITH_SIGNALS = 2, 3
"""The versions of files without signals and validation losses, and of those without restored states."""


@dataclass(frozen=True, kw_only=True)
class UnsentUpdate:
    """A meta update, to be sent after the observation of its step."""

    step: int
    alignments: tuple[float, ...]
    """One for each run; NaN: the run has no update."""
    validation_losses: tuple[float | None, ...]
    """One for each run; `None`: there is none."""


@dataclass(frozen=True, kw_only=True)
class Unsent:
    """The observations and updates of a run or sweep that a daemon lacks."""

    target: str
    """The addresses of the daemon."""
    run_ids: tuple[str, ...]
    task: str
    configs: tuple[RunConfig, ...]
    """The requested config of each run."""
    was_open: bool
    """Whether a daemon had opened the runs."""
    created_at: float | None = None
    """When the daemon created the first run, in seconds since the epoch; `None`: not known."""
    first_step: int
    """The step of the first losses."""
    losses: tuple[tuple[float, ...], ...]
    """For each step, one loss of each run."""
    updates: tuple[UnsentUpdate, ...] = ()
    finish: bool = False
    """Whether the runs are to be marked as finished."""
    signals: tuple[SignalRecord, ...] = ()
    """What came with the observations of these steps."""
    validations: tuple[ValidationRecord, ...] = ()
    """The validation losses that came with observations."""
    restored: tuple[int, ...] = ()
    """The steps before which the training restored a saved state."""

    def said(self) -> str:
        """Return a description for messages."""
        first, last = self.first_step, self.first_step + len(self.losses) - 1
        steps = f"step {first}" if first == last else f"steps {first} to {last}"
        what = [steps] if self.losses else []
        return " and ".join([*what, "the end of the run"] if self.finish else what)


def unsent_of(ledger: Ledger[Any], target: str, *, finish: bool) -> Unsent:
    """Return the observations and updates of a ledger that the daemon may lack."""
    entries = ledger.unsent()
    return Unsent(
        target=target,
        run_ids=ledger.run_ids,
        task=ledger.start.task,
        configs=tuple(completed(config, ledger.start.read_off) for config in ledger.start.configs),
        was_open=ledger.is_open,
        created_at=ledger.created_at,
        first_step=entries[0].step if entries else ledger.next_step,
        losses=tuple(tuple(entry.losses) for entry in entries),
        updates=tuple(
            UnsentUpdate(
                step=update.step,
                alignments=tuple(update.alignments),
                validation_losses=tuple(update.validation_losses),
            )
            for update in ledger.backlog.updates
        ),
        finish=finish,
        signals=tuple(
            SignalRecord(step=entry.step, signals=entry.signals) for entry in entries if entry.signals
        ),
        validations=tuple(
            ValidationRecord(step=entry.validation.step, loss=entry.validation.loss, observed_step=entry.step)
            for entry in entries
            if entry.validation
        ),
        restored=tuple(entry.step for entry in entries if entry.restored),
    )


def keep(
    ledger: Ledger[Any], target: str, folder: str, cause: MlrsError | None, *, finish: bool = False
) -> str:
    """Write the observations and updates that the daemon lacks to a file; return the warning to log."""
    unsent = unsent_of(ledger, target, finish=finish)
    why = f" ({cause})" if cause else ""
    lacks = f"{ledger.label}: the daemon does not have {unsent.said()}{why}"
    if not folder:
        return f"{lacks}. It is lost with this process; give connect() an unsent_dir to keep them"
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", ledger.run_ids[0])[:120]
    path = Path(ledger.saved_as or Path(folder) / f"{name}-{secrets.token_hex(4)}.json")
    try:
        ledger.saved_as = str(save(unsent, path.parent, path.name))
        ledger.saved_at = ledger.next_step
    except OSError as error:
        return f"{lacks}, and it could not be written to {folder} either: {error}"
    return f"{lacks}. Send it later with: mlrs runs push {ledger.saved_as} --address {target}"


def let_go(ledger: Ledger[Any]) -> None:
    """Remove the file of a ledger's runs, after the daemon has received everything."""
    if ledger.saved_as:
        Path(ledger.saved_as).unlink(missing_ok=True)
        ledger.saved_as = ""


def default_folder() -> str:
    """Return the default folder for files of unsent observations; empty: no files are written."""
    if (given := os.environ.get("MLRS_UNSENT_DIR")) is not None:
        return given
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return str(Path(state, "mlrs", "unsent").expanduser())


def save(unsent: Unsent, folder: Path, name: str) -> Path:
    """Write a file atomically, readable by its owner only; return its path.

    If the folder is not writable, the file is written to the folder for temporary files.

    Raises:
        OSError: that failed, too.
    """
    text = dumped(unsent)
    try:
        return _write(text, folder, name)
    except OSError:
        return _write(text, Path(tempfile.gettempdir()), name)


def _write(text: str, folder: Path, name: str) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)  # of mode 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(folder / name)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return folder / name


def load(path: Path) -> Unsent:
    """Read a file."""
    try:
        return loaded(Path(path).read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"path: {path} cannot be read: {error}", field="path") from error
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"path: {path} {error}", field="path") from error


def dumped(unsent: Unsent) -> str:
    """Return the text of the file."""
    facts = dataclasses.asdict(unsent)
    facts["configs"] = [
        _encoded(convert.config_to_proto(config).SerializeToString()) for config in unsent.configs
    ]
    if len(set(facts["configs"])) == 1:
        facts["configs"] = facts["configs"][:1]
    facts["steps"] = len(unsent.losses)
    facts["losses"] = _packed([loss for losses in unsent.losses for loss in losses])
    for update in facts["updates"]:
        update["alignments"] = _packed(update["alignments"])
        update["validation_losses"] = [
            None if one is None else one.hex() for one in update["validation_losses"]
        ]
    del facts["signals"], facts["validations"], facts["restored"]
    version = PLAIN
    if unsent.signals or unsent.validations or unsent.restored:
        version = WITH_SIGNALS
        facts["signals"] = [[one.step, _packed(dataclasses.astuple(one.signals))] for one in unsent.signals]
        facts["validations"] = [
            [one.observed_step, one.step, _packed([one.loss])] for one in unsent.validations
        ]
    if unsent.restored:
        version, facts["restored"] = VERSION, list(unsent.restored)
    return json.dumps({"format": FORMAT, "version": version} | facts, indent=1)


def loaded(text: str) -> Unsent:
    """Return the content of a file's text."""
    try:
        facts = json.loads(text)
        if not isinstance(facts, dict) or facts.pop("format", None) != FORMAT:
            raise InvalidArgumentError("is not a file of unsent observations", field="path")
        if not PLAIN <= (version := facts.pop("version")) <= VERSION:
            way = (
                "use a newer client" if version > VERSION else "no released version of mlrs wrote such files"
            )
            raise InvalidArgumentError(
                f"is of version {version}, and this client reads {PLAIN} to {VERSION}; {way}", field="path"
            )
        run_ids, count = tuple(facts["run_ids"]), facts.pop("steps")
        configs = [
            convert.config_from_proto(pb.RunConfig.FromString(_decoded(config)))
            for config in facts["configs"]
        ]
        losses = _unpacked(facts["losses"], count * len(run_ids))
        facts["run_ids"], facts["configs"] = (
            run_ids,
            tuple(configs * (len(run_ids) if len(configs) == 1 else 1)),
        )
        facts["losses"] = tuple(
            losses[index : index + len(run_ids)] for index in range(0, len(losses), len(run_ids))
        )
        facts["updates"] = tuple(_update(update, len(run_ids)) for update in facts["updates"])
        facts["signals"] = tuple(_signals(*one) for one in facts.get("signals", ()))
        facts["validations"] = tuple(_validation(*one) for one in facts.get("validations", ()))
        facts["restored"] = tuple(facts.get("restored", ()))
        return Unsent(**facts)
    except InvalidArgumentError:
        raise
    except Exception as error:  # any error: the file may hold anything
        raise InvalidArgumentError(f"is damaged: {error}", field="path") from error


def _update(facts: dict[str, Any], size: int) -> UnsentUpdate:
    return UnsentUpdate(
        step=facts["step"],
        alignments=_unpacked(facts["alignments"], size),
        validation_losses=tuple(
            None if one is None else float.fromhex(one) for one in facts["validation_losses"]
        ),
    )


def _signals(step: int, numbers: str) -> SignalRecord:
    values = _unpacked(numbers, len(SIGNAL_NAMES))
    return SignalRecord(step=step, signals=Signals(**dict(zip(SIGNAL_NAMES, values, strict=True))))


def _validation(observed_step: int, step: int, loss: str) -> ValidationRecord:
    return ValidationRecord(step=step, loss=_unpacked(loss, 1)[0], observed_step=observed_step)


def _packed(numbers: Sequence[float]) -> str:
    return _encoded(struct.pack(f"<{len(numbers)}d", *numbers))


def _unpacked(text: str, count: int) -> tuple[float, ...]:
    return struct.unpack(f"<{count}d", _decoded(text))


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
