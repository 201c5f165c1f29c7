"""The names of methods that mean something to the report, and how methods are grouped."""

from __future__ import annotations

from collections.abc import Iterable

ADVISED = "search"
"""The method whose quality is in question: a search, then what the daemon chooses, told all there is."""
SEARCHES = (
    "search-signals",
    "search-losses",
    "search-uncharged",
    "search-schedule",
    "search-linear",
    "search-cosine",
)
"""The same search: the daemon is told less, a schedule follows, or its steps do not count."""
NETWORK = "mlr-snet"
"""The network without a search: what a plain `next_lr` is answered by."""
ABLATIONS = {
    "search-signals": "without validation losses",
    "search-losses": "without validation losses and signals",
    "search-schedule": "without the network: the plain schedule after a search",
    NETWORK: "without a search: the network, told losses only",
}
"""The methods that lack parts of the advice, and which: they show what these are worth."""
CONSTANT = "constant"
"""The default learning rate, never changed: gap closed is 0 here."""
COSINE = "cosine"
"""Cosine decay from the default learning rate: the untuned schedule most people would take."""
TUNED = ("tuned-cosine", "tuned-linear", "tuned-wsd")
"""Schedules whose base learning rate was tuned on each row, by validation losses."""
OTHER_TUNED = ("tuned-schedule-free",)
"""Methods that were tuned in the same way, but are no schedules, and so no yardsticks."""
META = ("mlr-snet-meta", "paper-meta", "mlr-snet-meta-rescue")
"""Networks in meta mode, which see validation losses, as tuning does. `meta.md` is about them."""
BEST_TUNED = "best tuned"
"""Not a method that ran: on each row, the tuned method with the least loss. Gap closed is 1 here."""


def ordered(methods: Iterable[str]) -> tuple[str, ...]:
    """Return the methods in the order of tables and pictures: searches, networks, the tuned, then by name."""
    fixed = (ADVISED, *SEARCHES, NETWORK, BEST_TUNED, *TUNED, *OTHER_TUNED)
    present = set(methods)
    return (*(name for name in fixed if name in present), *sorted(present.difference(fixed)))
