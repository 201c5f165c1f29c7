"""Writes the scenarios of `proto/conformance`: plays each on a daemon, and states what came of it.

    python -m tests.conformance.make [--check]

`--check` writes nothing and fails where a file is not what would be written. On another build than the one
that the files were made on, the last bits of learning rates may differ: there, they need to be near only.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conformance.actions import MODEL
from tests.conformance.player import PACKAGE, Player, differences
from tests.conformance.scenarios import SCENARIOS
from tests.core.models.pinned_advice import build
from tests.support.daemon import Daemon

Json = dict[str, Any]
FOLDER = Path(__file__).parents[2] / "proto" / "conformance"
VERSION = 1
"""The version of the format, which `proto/conformance/README.md` describes."""
NEVER_STATED = {
    "createTime",
    "durableStep",
    "durableSteps",
    "message",
    "nextPageToken",
    "runHandle",
    "updateTime",
}
"""The fields of responses that differ from one play to the next, or that are for people."""
ELSEWHERE = 1e-5
"""How far learning rates of another build may be apart, as a part of the stated one."""


def described(name: str) -> Json:
    """Return a scenario as its file has it, but without what comes of its actions."""
    function = SCENARIOS[name]
    description = (inspect.getdoc(function) or "").removeprefix("Return ")
    return {
        "contract": PACKAGE,
        "version": VERSION,
        "name": name,
        "description": description[:1].upper() + description[1:],
        "model": MODEL,
        "build": build(),
        "actions": function(),
    }


def recorded(scenario: Json, player: Player) -> Json:
    """Play a scenario, and return it with what came of its actions."""
    actions = []
    for action, outcome in player.play(scenario):
        left_out = NEVER_STATED.union(action.get("ignore", ()))
        dropped = {"ignore", "keep"} if "error" in outcome else {"ignore"}
        kept = {key: value for key, value in action.items() if key not in dropped}
        actions.append({**kept, **_stated(outcome, left_out)})
    return {**scenario, "actions": actions}


def written(scenario: Json) -> str:
    """Return the text of a file: a line for each action."""
    actions = ",\n".join("  " + json.dumps(action, allow_nan=False) for action in scenario["actions"])
    head = json.dumps({**scenario, "actions": []}, indent=1).removesuffix("[]\n}")
    return f"{head}[\n{actions}\n ]\n}}\n"


def read(name: str) -> Json:
    """Return a scenario from its file."""
    found: Json = json.loads(file_of(name).read_text(encoding="utf-8"))
    return found


def file_of(name: str) -> Path:
    """Return the file of a scenario."""
    return FOLDER / f"{name}.json"


def tolerance_of(scenario: Json) -> float:
    """Return how far the doubles of this build may be from those that a scenario states."""
    return 0.0 if scenario["build"] == build() else ELSEWHERE


def stale(fresh: dict[str, Json]) -> Iterator[str]:
    """Yield what is wrong with the files, given what would be written now."""
    for path in FOLDER.glob("*.json"):
        if path.stem not in fresh and path.stem != "schema":
            yield f"{path.name}: no such scenario"
    for name, scenario in fresh.items():
        if not file_of(name).exists():
            yield f"{name}.json: missing"
        elif tolerance_of(there := read(name)):
            yield from differences({**there, "build": build()}, scenario, ELSEWHERE, name)
        elif file_of(name).read_text(encoding="utf-8") != written(scenario):
            yield f"{name}.json: stale"


def made() -> dict[str, Json]:
    """Return every scenario as it would be written now, by name."""
    with tempfile.TemporaryDirectory() as folder, Daemon(Path(folder) / "data") as daemon:
        player = Player(daemon)
        try:
            return {name: recorded(described(name), player) for name in SCENARIOS}
        finally:
            player.close()


def main() -> None:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    check = parser.parse_args().check
    fresh = made()
    problems = list(stale(fresh))
    if check and problems:
        sys.exit("\n".join(["run `python -m tests.conformance.make` and commit the files:", *problems]))
    if not check:
        for name, scenario in fresh.items():
            file_of(name).write_text(written(scenario), encoding="utf-8")


def _stated(value: Any, left_out: set[str]) -> Any:
    """Return an outcome without some of its fields."""
    if isinstance(value, dict):
        return {key: _stated(each, left_out) for key, each in value.items() if key not in left_out}
    return [_stated(each, left_out) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
