"""Log messages of a run: about outages, and about a daemon that stores nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from mlrs.errors import MlrsError

STALL_S = 5.0
"""How long a daemon may answer without storing before that is logged, in seconds: fifty flush intervals."""


@dataclass(slots=True, eq=False)
class Outage:
    """The time from the first late answer of the daemon until it has answered all missed steps."""

    label: str
    """What messages call the run."""
    cause: MlrsError
    """Why the first step had no answer."""
    until: int
    """It ends when the daemon answers this step, or a later one."""
    since: int
    """The ledger's count of fallback steps at its beginning."""
    lost: MlrsError | None = None
    """Why it never ends, if the daemon cannot get the missed steps any more."""
    keeps_losses: bool = False
    """Whether losses are nevertheless kept, to be written to a file at the end."""
    is_logged: bool = False
    """Whether its beginning was logged."""
    is_loss_logged: bool = False
    """Whether it was logged that it does not end."""

    @property
    def has_news(self) -> bool:
        """Whether there is something to log now."""
        return not self.is_logged or (self.lost is not None and not self.is_loss_logged)

    def news(self) -> str | None:
        """Return what to log now, each message once."""
        if not self.is_logged:
            self.is_logged = True
            return (
                f"{self.label}: no advice in time; going on with the fallback. The losses are kept, and the"
                f" daemon is tried again in the background. {self._why(self.cause)}"
            )
        if self.lost is not None and not self.is_loss_logged:
            self.is_loss_logged = True
            what = (
                "cannot be advised any more; its losses are kept, to be written to a file at the end"
                if self.keeps_losses
                else "cannot be advised any more, and losses from here on are not kept"
            )
            return (
                f"{self.label} {what}: all further steps are answered by the fallback. {self._why(self.lost)}"
            )
        return None

    def _why(self, error: MlrsError) -> str:
        """Return an error's message without the run's name at its beginning."""
        return f"({str(error).removeprefix(f'{self.label}: ')})"

    def end(self, fallback_steps: int) -> str:
        """Return what to log at its end, given the ledger's count of fallback steps."""
        return (
            f"{self.label}: the daemon is back and has every loss; {fallback_steps - self.since} steps were"
            " answered by the fallback"
        )


@dataclass(slots=True, eq=False)
class StorageStall:
    """Detects a daemon that answers without storing, by the durable step of its answers.

    The longest pause between two answers does not count: nothing was answered then, so the next answer may be
    the first that could show a new durable step.
    """

    label: str
    """What messages call the run."""
    is_logged: bool = False
    """Whether it was logged that nothing is stored."""
    _durable_step: int = -1
    _since: float = field(default_factory=time.monotonic)
    _newest: float = field(default_factory=time.monotonic)
    _pause_s: float = 0.0

    def news(self, durable_step: int, answered_step: int) -> str | None:
        """Enter how far a run is answered and durable now; return what to log, each message once."""
        now = time.monotonic()
        if durable_step != self._durable_step or answered_step <= durable_step:
            self._durable_step, self._since, self._newest, self._pause_s = durable_step, now, now, 0.0
            if self.is_logged:
                self.is_logged = False
                return f"{self.label}: the daemon stores again, up to step {durable_step} so far"
            return None
        self._pause_s = max(self._pause_s, now - self._newest)
        self._newest = now
        if self.is_logged or now - self._since - self._pause_s < STALL_S:
            return None
        self.is_logged = True
        return (
            f"{self.label}: the daemon has stored nothing after step {durable_step} for"
            f" {now - self._since:.0f} s. Its advice goes on, and the losses are kept here, to be sent again"
            " should it be lost; `mlrs health` and the daemon's log say more"
        )
