"""Tags and notes of runs, which people change."""

from __future__ import annotations

import structlog

from mlrs_server.domain.notes import NoteChange
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.live.views import RunView
from mlrs_server.runs.changes import RunChanges
from mlrs_server.tenancy import check_full_name

log = structlog.get_logger()


class RunNotes:
    """Changes tags and notes, of any run: this daemon need not own it. Used from one event loop.

    Nothing of a run in memory changes, and its advice goes on meanwhile.
    """

    def __init__(self, stored: StoredRuns, changes: RunChanges) -> None:
        """Change runs of `stored`."""
        self._stored = stored
        self._changes = changes

    async def change(self, run_id: str, change: NoteChange) -> RunView:
        """Change the tags and the note of a run, and return it.

        Raises:
            AdvisorError: there is no such run, it would have too many tags, or the store fails.
        """
        check_full_name(run_id)
        return await self._changes.to_the_end(self._change(run_id, change))

    async def _change(self, run_id: str, change: NoteChange) -> RunView:
        await self._stored.in_store(lambda store: store.change_notes(run_id, change))
        log.info("run_noted", run_id=run_id)
        (view,) = await self._stored.views([await self._stored.get(run_id)])
        return view
