"""Files of observations that no daemon had received when a training ended, to be sent later."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import Any

from mlrs.errors import InvalidArgumentError, MlrsError
from mlrs.ledger.ledger import Ledger
from mlrs.ledger.open_request import completed
from mlrs.values.signals import SignalRecord, ValidationRecord
from mlrs.wire.unsent_format import NO_OUTCOME, Unsent, UnsentUpdate, dumped, loaded


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
        outcome=ledger.outcome if finish else NO_OUTCOME,
        tags=ledger.start.tags,
        note=ledger.start.note,
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
