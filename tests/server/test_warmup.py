"""Machine code before the first run."""

from __future__ import annotations

import subprocess
import sys

CHECK = """
import numpy as np
from mlrs_core import advise, usual
from mlrs_core.architectures.drift import kernel as drift
from mlrs_core.architectures.paper import kernel as paper
from mlrs_core.config import RunConfig
from mlrs_core.policy import table_of
from mlrs_server import convert, entries, ledger, runs
from mlrs_server.journal import _Batch
from mlrs_server.store import packing
from mlrs_server.entries import Entries
from mlrs_server.warmup import _policies, warm_up

functions = [ledger.common_group, ledger.admit, ledger.settle]
functions += [entries.count_rows, entries.sort_by_row, packing._lay_out]
functions += [drift._advance, paper._advance, usual._usual_lrs]
assert not any(function.signatures for function in functions)
warm_up()
made = [list(function.signatures) for function in functions]
assert all(len(signatures) == 1 for signatures in made), made
for policy in _policies():
    group = runs.RunGroup(3, "", policy)
    rows = [group.reserve() for _ in range(20)]
    for row in rows:
        group.put(row, str(row), row, RunConfig(horizon=9, num_classes=10), runs.first_snapshot(policy))
    handles = group.records["handle"][rows]
    message = Entries.of(handles, np.zeros(20, np.int64), np.linspace(0, 2, 20))
    ledger.common_group(message.table)
    done = group.answer(message)
    assert done.fresh == done.plain == 20
    losses = np.array([0.0, np.nan, 1.0, 1.0, 1.0])
    group.answer(Entries.of(handles[:5], np.array([0, 1, 1, 2, 7]), losses))
    group.answer(convert.entry_of(int(handles[6]), 1, 0.5))
    updates = _Batch.of(group).updates()
    packing.pack_all_observations(updates.answers, updates.bounds)
assert [list(function.signatures) for function in functions] == made
"""


def test_nothing_is_compiled_for_a_run() -> None:
    """After the warm-up, messages of every kind find their machine code made: no other is made for them."""
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
