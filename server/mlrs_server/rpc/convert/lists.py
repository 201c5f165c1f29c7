"""Conversion of what lists of runs are asked for: filters, orders, and page tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from mlrs_proto import v1 as pb
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.notes import check_tags
from mlrs_server.errors import SHOWN, AdvisorError, invalid_field
from mlrs_server.live.views import RunView
from mlrs_server.storage import Creation, Position, Recency, RunTraits
from mlrs_server.tenancy import bare, check_run_id

MAX_PAGE = 1000
"""The most runs or models in a page."""
DEFAULT_PAGE = 100
"""The size of a page if the request gives none."""
MAX_TEXT_BYTES = 2**20
"""A page ends with the run whose tags and note make it so many bytes, so that it fits into a message."""
_DIGEST = re.compile(r"[0-9a-f]{8,64}")
_BY_UPDATE, _BY_CREATION = "update", "create"
"""How tokens of these orders begin; one of a list by id is an id, which has no space."""


def page_size_from_proto(value: int) -> int:
    """Return the size of a page; 0 is the default.

    Raises:
        AdvisorError: it is too large.
    """
    if value > MAX_PAGE:
        raise invalid_field("page_size", f"must be at most {MAX_PAGE}, is {value}; ask for pages")
    return value or DEFAULT_PAGE


def list_position_from_proto(order_by: str, token: str) -> Position:
    """Return the position in a list of runs where a page begins.

    Raises:
        AdvisorError: the order is unknown, or the token is not one of such a list.
    """
    order = " ".join(order_by.split())
    if order in {"", "run_id"}:
        if " " in token:
            raise _wrong_token()
        return token
    if order == "update_time desc":
        return _recency(token) if token else Recency()
    if order == "create_time desc":
        return _creation(token) if token else Creation()
    raise invalid_field(
        "order_by", f"must be run_id, update_time desc or create_time desc, is {order_by[:SHOWN]!r}"
    )


def _recency(token: str) -> Recency:
    (newest, update_time), run_id = _parts(token, _BY_UPDATE, 2)
    return Recency(newest, update_time, run_id)


def _creation(token: str) -> Creation:
    (create_time,), run_id = _parts(token, _BY_CREATION, 1)
    return Creation(create_time, run_id)


def _parts(token: str, order: str, times: int) -> tuple[list[float], str]:
    """Return the times and the id of a token.

    Raises:
        AdvisorError: it is of another order, or malformed.
    """
    first, *written = token.split(" ")
    if first != order or len(written) != times + 1:
        raise _wrong_token()
    try:
        found, run_id = [float.fromhex(one) for one in written[:-1]], check_run_id(written[-1])
    except (ValueError, OverflowError, AdvisorError) as error:
        raise _wrong_token() from error
    if not all(map(math.isfinite, found)):
        raise _wrong_token()
    return found, run_id


def _wrong_token() -> AdvisorError:
    return invalid_field(
        "page_token", "must be the next_page_token of a list in the same order; list from the beginning"
    )


def page_of(views: Sequence[RunView], size: int) -> Sequence[RunView]:
    """Return the runs of a page of at most `size`, of those that are left: as many as fit into a message."""
    size_bytes = 0
    for count, view in enumerate(views[:size], 1):
        texts = (view.note, *view.tags, *view.tags.values())
        size_bytes += sum(len(text.encode()) for text in texts)
        if size_bytes >= MAX_TEXT_BYTES:
            return views[:count]
    return views[:size]


def page_token_to_proto(after: Position, page: Sequence[RunView]) -> str:
    """Return the token of the next page; `page`, at least one run, began after the position `after`."""
    last = bare(page[-1].run_id)
    if isinstance(after, str):
        return last
    if isinstance(after, Creation):
        return f"{_BY_CREATION} {page[-1].create_time.hex()} {last}"
    newest = after.newest if math.isfinite(after.newest) else page[0].update_time
    return f"{_BY_UPDATE} {newest.hex()} {page[-1].update_time.hex()} {last}"


def traits_from_proto(request: pb.ListRunsRequest) -> RunTraits:
    """Return what the runs of a list have in common besides how their ids begin and their status.

    Raises:
        AdvisorError: the digest of the model, the task or a tag is malformed.
    """
    name, at, digest = request.model.partition("@")
    if not name.isprintable() or (at and not _DIGEST.fullmatch(digest)):
        raise invalid_field(
            "model",
            "must be a name, or name@digest with 8 to 64 of the digest's hexadecimal digits, is "
            f"{request.model[:SHOWN]!r}",
        )
    return RunTraits(
        contains=request.contains,
        model=name,
        digest=digest,
        task=request.task and check_run_id(request.task, "task"),
        tags=check_tags(dict(request.tags)),
    )


def status_from_proto(value: int) -> RunStatus | None:
    """Return a status to filter by; `None` is any.

    Raises:
        AdvisorError: the value is unknown.
    """
    if value == pb.RUN_STATUS_UNSPECIFIED:
        return None
    if value not in tuple(RunStatus):
        raise invalid_field("status", f"must be one of the contract's RunStatus, is {value}")
    return RunStatus(value)
