"""The rules of docs/guides/client-authors.md: each has a test, and their numbers are those of our client."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from mlrs.ledger.backlog import MAX_KEPT
from mlrs.ledger.ledger import RANK_TIMEOUT_S
from mlrs.protocol.addresses import LEAST_ATTEMPT_S
from mlrs.protocol.deadline import FIRST_PAUSE_S, LONGEST_PAUSE_S
from mlrs.protocol.routing import MAX_HOPS
from mlrs.transport.channel import CHANNEL_OPTIONS
from mlrs.values.options import DEFAULT_TIMEOUT_S, RECORD_TIMEOUT_S
from mlrs.values.reasons import PASSING_REASONS
from mlrs.wire.calls import MAX_BATCH

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "client-authors.md").read_text(encoding="utf-8")
RULES = dict(re.findall(r"^- \*\*(\d\.\d)\*\* (.*)$", PAGE, re.MULTILINE))
ROWS = {
    rule: (re.findall(r"`([^`]+)`", tests), scenario)
    for rule, tests, scenario in re.findall(
        r"^\| (\d\.\d) \| (.*) \| (?:`([a-z-]+)`)? \|$", PAGE, re.MULTILINE
    )
}


def test_rules_are_numbered_without_gaps() -> None:
    """Rules count from 1 in each section, as do the sections: code and other pages refer to the numbers."""
    sections = [int(number) for number in re.findall(r"^## (\d)\. ", PAGE, re.MULTILINE)]
    assert sections == list(range(1, len(sections) + 1))
    for section in sections:
        numbers = [int(rule[2:]) for rule in RULES if rule.startswith(f"{section}.")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert numbers


def test_every_rule_has_tests() -> None:
    """The table has a line for each rule, in order, with a test or more."""
    assert list(ROWS) == list(RULES)
    assert all(tests for tests, _ in ROWS.values())


@pytest.mark.parametrize("rule", ROWS)
def test_the_tests_of_a_rule_exist(rule: str) -> None:
    """Every test and every scenario that the table names is there."""
    tests, scenario = ROWS[rule]
    for test in tests:
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        functions = [
            node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        assert name in functions, test
    assert not scenario or (ROOT / "proto" / "conformance" / f"{scenario}.json").exists()


def test_channel_options_are_those_of_the_client() -> None:
    """The options that rule 8.1 names are the client's, with its values."""
    named = {name: int(value) for name, value in re.findall(r"`(grpc\.[a-z0-9_.]+)` (\d+)", RULES["8.1"])}
    assert named == dict(CHANNEL_OPTIONS)


def test_passing_reasons_are_those_of_the_client() -> None:
    """The reasons that rule 4.4 names are those after which the client sends again."""
    assert set(re.findall(r"`([A-Z_]+)`", RULES["4.4"])) == PASSING_REASONS


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("2.8", f"{MAX_KEPT:,} observations"),
        ("4.3", f"begins with {FIRST_PAUSE_S * 1000:g} ms and doubles up to {LONGEST_PAUSE_S:g} s"),
        ("6.1", f"{DEFAULT_TIMEOUT_S:g} s"),
        ("6.2", f"{RECORD_TIMEOUT_S:g} s"),
        ("6.3", f"{RANK_TIMEOUT_S:g} s"),
        ("6.4", f"at least {LEAST_ATTEMPT_S:g} s"),
        ("8.3", f"at most {MAX_BATCH:,} runs"),
    ],
)
def test_numbers_are_those_of_the_client(rule: str, words: str) -> None:
    """A number in a rule is the one that the client uses."""
    assert words in RULES[rule]


def test_redirects_in_a_row_are_those_of_the_client() -> None:
    """Rule 7.2 says after how many redirects the client pauses."""
    assert MAX_HOPS == 4
    assert "After four of these" in RULES["7.2"]


def test_the_example_names_rules_that_exist() -> None:
    """The comments of the client in JavaScript refer to rules of the page."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "examples" / "node").glob("*.js"))
    named = set(re.findall(r"(?<![\dx.])(\d\.\d)(?![\d.])", " ".join(re.findall(r"//.*|/\*\*.*", sources))))
    assert named
    assert named <= set(RULES)
