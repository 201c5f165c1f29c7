"""Calls that list runs, page by page, and that change what is noted of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mlrs.errors import InvalidArgumentError
from mlrs.protocol.routing import Call
from mlrs.values import arguments as check
from mlrs.values import notes
from mlrs.values.checks import whole
from mlrs.values.types import RunInfo, RunPage
from mlrs.wire import convert
from mlrs_proto import v1 as pb

T = TypeVar("T")
MAX_PAGE = 1000
"""The most runs that the contract lists in one call."""
_ORDERS: dict[notes.Order, str] = {"id": "", "recent": "update_time desc", "created": "create_time desc"}


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list."""

    items: tuple[T, ...]
    """The items on it."""
    next_token: str
    """Names the next page; empty: there is none."""


def listing_request(
    *,
    prefix: object = "",
    contains: object = "",
    status: object = None,
    model: object = None,
    task: object = None,
    tags: object = None,
    order: object = "id",
) -> pb.ListRunsRequest:
    """Return the request of the first page of a list of runs, with checked arguments."""
    return pb.ListRunsRequest(
        prefix=check.prefix(prefix),
        contains=check.prefix(contains, "contains"),
        status=convert.status_to_proto(check.status(status)),
        model="" if model is None else check.model(model),
        task="" if task is None else check.run_id(task, "task"),
        tags=notes.tags("tags", tags),
        order_by=_ORDERS[notes.order(order)],
    )


def run_page(size: object, cursor: object, **chosen: object) -> Call[RunPage]:
    """Read one page of a list of runs; the options are those of `listing_request`."""
    if not isinstance(cursor, str):
        raise InvalidArgumentError(f"cursor must be a string; is {cursor!r:.100}", field="cursor")
    request = listing_request(**chosen)
    request.page_size, request.page_token = whole("size", size, low=1, high=MAX_PAGE), cursor
    return Call(
        "ListRuns",
        request,
        lambda response: RunPage(
            runs=tuple(map(convert.run_from_proto, response.runs)), cursor=response.next_page_token or None
        ),
    )


def update_run(run_id: object, set_tags: object, remove_tags: object, note: object) -> Call[RunInfo]:
    """Change the tags and the note of a run."""
    request = pb.UpdateRunRequest(
        run_id=check.run_id(run_id),
        set_tags=notes.tags("set_tags", set_tags),
        remove_tags=notes.tag_names("remove_tags", remove_tags),
        note=None if note is None else notes.note(note),
    )
    return Call("UpdateRun", request, _run)


class RunListing:
    """The calls that list runs page by page, and what they have listed so far."""

    def __init__(self, limit: object, *, newest_first: bool, order: object = None, **chosen: object) -> None:
        """Check the arguments; the other options are those of `listing_request`."""
        if newest_first and order is not None:
            raise InvalidArgumentError(
                "newest_first is order='recent'; leave one of them out", field="newest_first"
            )
        order = "recent" if newest_first else "id" if order is None else order
        self._request = listing_request(order=order, **chosen)
        self._left = check.limit(limit)
        self._listed: set[str] | None = set() if order == "recent" else None
        self._ended = False

    def next_call(self) -> Call[Page[RunInfo]] | None:
        """Return the call that reads the next page, if there is one."""
        if self._ended or self._left == 0:
            return None
        self._request.page_size = MAX_PAGE if self._left is None else min(MAX_PAGE, self._left)
        request = pb.ListRunsRequest()
        request.CopyFrom(self._request)
        return Call(
            "ListRuns",
            request,
            lambda response: Page(
                tuple(map(convert.run_from_proto, response.runs)), response.next_page_token
            ),
        )

    def new_of(self, page: Page[RunInfo]) -> Sequence[RunInfo]:
        """Return the runs of a page that were not listed before, no more than the limit.

        In the order by update time, a run that is updated while pages are read is listed again.
        """
        self._request.page_token, self._ended = page.next_token, not page.next_token
        new = page.items
        if self._listed is not None:
            new = tuple(run for run in new if run.id not in self._listed)
            self._listed.update(run.id for run in new)
        if self._left is not None:
            new = new[: self._left]
            self._left -= len(new)
        return new


def _run(response: Any) -> RunInfo:
    return convert.run_from_proto(response.run)
