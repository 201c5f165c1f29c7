"""The scenarios of `proto/conformance`: what they state is what a daemon answers, whoever asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from tests.conformance import make
from tests.conformance.player import Player, differences
from tests.conformance.scenarios import SCENARIOS
from tests.support.daemon import Daemon


@pytest.fixture(scope="module", params=["stubs", "reflection"])
def player(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Player]:
    """Play on a daemon of its own, with messages of the stubs or, as `grpcurl` does, of the reflection."""
    with Daemon(tmp_path_factory.mktemp("conformance") / "data") as daemon:
        player = Player(daemon, reflected=request.param == "reflection")
        yield player
        player.close()


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_daemon_answers_what_a_scenario_states(player: Player, name: str) -> None:
    """Every action of a scenario has the stated response or error, to the bit, without a client of ours."""
    scenario = make.read(name)
    tolerance = make.tolerance_of(scenario)
    problems = []
    for number, (action, outcome) in enumerate(player.play(scenario)):
        stated = _stated(action)
        found = list(differences(stated, outcome, tolerance)) if stated else list(outcome)
        problems += [f"action {number}: {problem}" for problem in found]
    assert problems == []


def _stated(action: dict[str, Any]) -> dict[str, Any]:
    """Return what an action states to come of it."""
    return {key: value for key, value in action.items() if key in ("response", "error")}


def test_the_files_are_what_the_reference_implementation_makes() -> None:
    """Made again, every file has the same bytes; on another build, learning rates that are near."""
    assert list(make.stale(make.made())) == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_files_are_as_the_schema_says(name: str) -> None:
    """Every file follows the schema beside it."""
    schema = json.loads((make.FOLDER / "schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(make.read(name), schema)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ({"a": "0x1.0p+0"}, {"a": "0x1.0000000000001p+0"}),
        ({"a": [1, 2]}, {"a": [1]}),
        ({"a": False}, {}),
        ({"error": {"code": "OK"}}, {"response": {}}),
        ({"metadata": {}}, {"metadata": {"mlrs-owner": "b"}}),
        ({"a": "NaN"}, {"a": "0x0.0p+0"}),
    ],
)
def test_what_differs_is_noticed(expected: Any, actual: Any) -> None:
    """The comparison notices another bit, length, kind of outcome, and metadata that is not stated."""
    assert list(differences(expected, actual)) != []


def test_what_is_not_stated_is_not_compared() -> None:
    """A field that a scenario leaves out may have any value."""
    assert list(differences({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}, "d": 3})) == []
