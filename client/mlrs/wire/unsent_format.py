"""The format of files of observations that no daemon had received when a training ended.

The file is JSON. Losses, alignments, signals, validation losses and metrics, which must not change in any
bit, are base64 of little-endian float64: step by step, one loss of a run or the losses of all runs of a
sweep. A file without tags and a note is of version 5, one that also lacks anything for the memory of a task
of version 4, one that also lacks restored states of version 3, and one that also lacks signals and validation
losses of version 2: older clients read these.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlrs.errors import InvalidArgumentError
from mlrs.ledger.outcome import Outcome
from mlrs.values import notes
from mlrs.values.signals import SIGNAL_NAMES, SignalRecord, Signals, ValidationRecord
from mlrs.values.types import RunConfig
from mlrs.wire import convert
from mlrs_proto import v1 as pb

FORMAT, VERSION = "mlrs-unsent", 6
"""The name and the newest version of the format."""
PLAIN, WITH_SIGNALS, WITH_RESTORED, WITH_OUTCOME = 2, 3, 4, 5
"""The versions of files without signals and validation losses, of those without restored states, of those
without anything for the memory of a task, and of those without tags and a note."""
NO_OUTCOME = Outcome()


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
    outcome: Outcome = NO_OUTCOME
    """How good the runs came out, if they are to be marked as finished."""
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The tags of the runs, if they are new."""
    note: str = ""
    """The note on the runs, if they are new."""

    def said(self) -> str:
        """Return a description for messages."""
        first, last = self.first_step, self.first_step + len(self.losses) - 1
        steps = f"step {first}" if first == last else f"steps {first} to {last}"
        what = [steps] if self.losses else []
        return " and ".join([*what, "the end of the run"] if self.finish else what)


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
    facts, version = _with_extras(facts, unsent)
    return json.dumps({"format": FORMAT, "version": version} | facts, indent=1)


def _with_extras(facts: dict[str, Any], unsent: Unsent) -> tuple[dict[str, Any], int]:
    """Return facts with what not every file has, and the oldest version that has all of it."""
    version = PLAIN
    for name in ("signals", "validations", "restored", "outcome", "tags", "note"):
        del facts[name]
    if unsent.signals or unsent.validations or unsent.restored:
        version = WITH_SIGNALS
        facts["signals"] = [[one.step, _packed(dataclasses.astuple(one.signals))] for one in unsent.signals]
        facts["validations"] = [
            [one.observed_step, one.step, _packed([one.loss])] for one in unsent.validations
        ]
    if unsent.restored:
        version, facts["restored"] = WITH_RESTORED, list(unsent.restored)
    if unsent.outcome != NO_OUTCOME:
        version, outcome = WITH_OUTCOME, unsent.outcome
        told = [] if outcome.validation_loss is None else [outcome.validation_loss]
        facts["outcome"] = {
            "metrics": _packed(outcome.metrics),
            "higher_is_better": outcome.higher_is_better,
            "validation_loss": _packed(told),
        }
    if unsent.tags or unsent.note:
        version, facts["tags"], facts["note"] = VERSION, dict(unsent.tags), unsent.note
    return facts, version


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
        facts["outcome"] = _outcome(facts["outcome"], len(run_ids)) if "outcome" in facts else NO_OUTCOME
        facts["tags"] = notes.tags("tags", facts.get("tags"))
        facts["note"] = notes.note(facts.get("note", ""))
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


def _outcome(facts: dict[str, Any], size: int) -> Outcome:
    metrics, told = facts["metrics"], facts["validation_loss"]
    return Outcome(
        metrics=_unpacked(metrics, size) if metrics else (),
        higher_is_better=facts["higher_is_better"],
        validation_loss=_unpacked(told, 1)[0] if told else None,
    )


def _packed(numbers: Sequence[float]) -> str:
    return _encoded(struct.pack(f"<{len(numbers)}d", *numbers))


def _unpacked(text: str, count: int) -> tuple[float, ...]:
    return struct.unpack(f"<{count}d", _decoded(text))


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
