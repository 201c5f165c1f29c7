"""`mlrs status`: how a daemon is."""

from __future__ import annotations

import json
import re
import time

import pytest
from click.testing import CliRunner, Result

from mlrs.types import LatencyHistogram
from mlrs_cli.daemon.status import _latency
from mlrs_cli.root import command
from tests.support.daemon import Daemon


def ask(address: str, *arguments: str) -> Result:
    """Run the command on a daemon."""
    return CliRunner().invoke(command, ["status", "--address", address, *arguments])


def test_it_shows_how_the_daemon_is(daemon: Daemon) -> None:
    """Answers, refusals, the store and the daemon itself are shown, a line each."""
    deadline = time.monotonic() + 20
    while "; 0 answers not stored" not in (result := ask(daemon.address)).output:
        assert time.monotonic() < deadline, result.output
    assert result.exit_code == 0, result.output
    lines = {line.split("│")[1].strip(): line for line in result.output.splitlines() if "│" in line}
    assert "7 fresh, 12 held" in lines["answers"]
    assert "half within" in lines["answered"]
    assert "none" in lines["refusals"]
    assert re.search(
        r"sqlite, works; 0 answers not stored; stored \d+\.\d s ago; \d+ flushes", lines["store"]
    )
    assert "2" in lines[f"{daemon.address} *"]
    assert "256" in lines[f"{daemon.address} *"]
    assert "mlrs " in lines["daemon"]
    assert "ranks" not in lines


def test_programs_read_json(daemon: Daemon) -> None:
    """With `--json` all of it is printed, with every digit."""
    result = ask(daemon.address, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["answers"] == {"fresh": 7, "held": 12}
    assert told["store"]["engine"] == "sqlite"
    assert sum(told["latency"]["counts"]) == 19
    assert told["replicas"] == [
        {"address": daemon.address, "answering": True, "shards": 256, "unfinished_runs": 2}
    ]
    assert told["version"]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((0, 0, 0), "nothing yet"),
        ((99, 1, 0), "half within 0.1 ms, 99 % within 0.1 ms"),
        ((1, 0, 1), "half within 0.1 ms, 99 % in more than 1 s"),
    ],
)
def test_latency_is_told_as_far_as_it_is_known(counts: tuple[int, ...], expected: str) -> None:
    """Half and 99 of 100 messages are told by the bound that they did not exceed, if there was any."""
    assert _latency(LatencyHistogram(upper_bounds_s=(1e-4, 1.0), counts=counts)) == expected
