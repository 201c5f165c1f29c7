"""Which runs a command deletes, and how it deletes them and counts."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import click

import mlrs
from mlrs_cli.text import shown

_UNITS = {
    "s": dt.timedelta(seconds=1),
    "min": dt.timedelta(minutes=1),
    "h": dt.timedelta(hours=1),
    "d": dt.timedelta(days=1),
    "w": dt.timedelta(weeks=1),
}
"""No `m`: who means months must not delete what is older than minutes."""
_LONGEST = dt.timedelta(days=100 * 365)


def age(text: str) -> dt.timedelta:
    """Return the length of time that a text names, such as `7d`.

    Raises:
        click.BadParameter: it names none.
    """
    match = re.fullmatch(r"([0-9]{1,8})(s|min|h|d|w)", text)
    if match is None or (length := int(match[1]) * _UNITS[match[2]]) > _LONGEST:
        raise click.BadParameter(f"{text!r} is no age; write a number and s, min, h, d or w, such as 7d")
    return length


@dataclass(frozen=True)
class Selection:
    """Which runs are meant."""

    prefix: str | None = None
    """Those whose ids begin with this."""
    status: str | None = None
    """Those of this status."""
    before: dt.datetime | None = None
    """Those whose last observations were stored before."""

    def __bool__(self) -> bool:
        """Return whether anything is asked for."""
        return any(value is not None for value in (self.prefix, self.status, self.before))

    def runs(self, advisor: mlrs.Advisor) -> list[mlrs.types.RunInfo]:
        """Return the runs that there are now, by id."""
        return [run for run in advisor.runs(self.prefix or "", self.status) if self.has(run)]

    def has(self, run: mlrs.types.RunInfo) -> bool:
        """Return whether a run is meant."""
        return (
            run.id.startswith(self.prefix or "")
            and self.status in {None, run.status.value}
            and (self.before is None or run.update_time < self.before)
        )


@dataclass(frozen=True)
class Deletion:
    """Deletes runs, and counts what became of them."""

    advisor: mlrs.Advisor
    counts: Counter[str] = field(default_factory=Counter)
    """How many runs were `deleted`, how many `gone` already, and how many `kept` since they had changed."""

    def named(self, run_ids: Iterable[str]) -> None:
        """Delete runs by id; say which there is none of."""
        for run_id in run_ids:
            try:
                self._delete(run_id)
            except mlrs.errors.RunNotFoundError as error:
                self._skip("gone", str(error))

    def existing(self, run_ids: Iterable[str]) -> Iterator[mlrs.types.RunInfo]:
        """Yield runs by id, deleting none; say which there is none of."""
        for run_id in run_ids:
            try:
                yield self.advisor.get_run(run_id)
            except mlrs.errors.RunNotFoundError as error:
                self._skip("gone", str(error))

    def selected(self, selection: Selection, runs: Iterable[mlrs.types.RunInfo]) -> None:
        """Delete runs, each only if it is still meant: a question may have waited for its answer for long."""
        for run in runs:
            try:
                now = self.advisor.get_run(run.id)
                if now.create_time == run.create_time and selection.has(now):
                    self._delete(run.id)
                else:
                    self._skip("kept", f"kept {run.id}: it has changed since it was selected")
            except mlrs.errors.RunNotFoundError:
                self._skip("gone", f"{run.id} is gone already")

    def summary(self) -> str:
        """Return the counts as a line."""
        said = f"deleted {plural(self.counts['deleted'])}"
        said += f"; {self.counts['gone']} gone already" if self.counts["gone"] else ""
        return said + (f"; {self.counts['kept']} kept, as changed" if self.counts["kept"] else "")

    def _delete(self, run_id: str) -> None:
        self.advisor.delete_run(run_id)
        self.counts["deleted"] += 1
        click.echo(f"deleted {shown(run_id)}")

    def _skip(self, why: str, message: str) -> None:
        self.counts[why] += 1
        click.echo(shown(message), err=True)


def plural(count: int) -> str:
    """Return so many runs in words."""
    return "1 run" if count == 1 else f"{count} runs"


def by_status(runs: Iterable[mlrs.types.RunInfo]) -> str:
    """Return how many runs of each status there are, in words."""
    counts = Counter(run.status.value for run in runs)
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
