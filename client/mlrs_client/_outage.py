"""A stretch of a run that its fallback answers."""

from __future__ import annotations

from dataclasses import dataclass

from mlrs_client._exceptions import MlrsError


@dataclass(slots=True, eq=False)
class Outage:
    """From the first step that the daemon did not answer in time, until it has answered what it missed."""

    label: str
    """What messages call the run."""
    cause: MlrsError
    """Why the first step had no answer."""
    until: int
    """It ends when the daemon answers this step, or a later one."""
    since: int
    """What the ledger's count of fallback steps was before."""
    lost: MlrsError | None = None
    """Why it never ends, if it does not: the daemon cannot be told any more what it missed."""
    keeps_losses: bool = False
    """Whether losses are kept all the same, to be written to a file at the end."""
    is_told: bool = False
    """Whether its beginning was logged ..."""
    is_loss_told: bool = False
    """... and that it does not end."""

    def news(self) -> str | None:
        """Return what is to be logged now; once each."""
        if not self.is_told:
            self.is_told = True
            return (
                f"{self.label}: no advice in time; going on with the fallback. The losses are kept, and the"
                f" daemon is tried again in the background. {self._why(self.cause)}"
            )
        if self.lost is not None and not self.is_loss_told:
            self.is_loss_told = True
            what = (
                "cannot be advised any more; its losses are kept, to be written to a file at the end"
                if self.keeps_losses
                else "cannot be caught up with by the daemon any more, and losses from here on are not kept"
            )
            return (
                f"{self.label} {what}: all further steps are answered by the fallback. {self._why(self.lost)}"
            )
        return None

    def _why(self, error: MlrsError) -> str:
        """Return what an error says, without the name that the message begins with."""
        return f"({str(error).removeprefix(f'{self.label}: ')})"

    def end(self, fallback_steps: int) -> str:
        """Return what is to be logged at its end, given the ledger's count of fallback steps."""
        return (
            f"{self.label}: the daemon is back and has every loss; {fallback_steps - self.since} steps were"
            " answered by the fallback"
        )
