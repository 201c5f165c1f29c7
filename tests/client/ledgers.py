"""Ledgers of runs that are open, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from mlrs_client._calls import Opened
from mlrs_client._fallback import Fallback
from mlrs_client._ledger import Ledger
from mlrs_client._start import Start


def opened_ledger(
    opened: Opened, entry: Callable[[int, Any], Any], fallback: Fallback | None = None
) -> Ledger[Any]:
    """Return a ledger of runs as a daemon has opened them."""
    configs = [run.info.config for run in opened.runs]
    start = Start(run_ids=opened.run_ids, configs=configs, task="task", timeout_s=1.0, on_existing="resume")
    ledger = Ledger(start, mock.Mock(), entry, fallback=fallback)
    ledger.open(opened)
    return ledger
