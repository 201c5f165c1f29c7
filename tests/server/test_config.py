"""The daemon's settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mlrs_server.config import ServerConfig, load_config
from mlrs_server.errors import Reason
from tests.server.support import raises


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLRS_")]:
        monkeypatch.delenv(name)


def test_flags_win_over_environment_over_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Per setting, flags override the environment, which overrides the file, which overrides defaults."""
    file = tmp_path / "mlrs.toml"
    file.write_text('listen = "h:1"\nmax_message_bytes = 4111\ndrain_timeout_s = 1\n')
    monkeypatch.setenv("MLRS_LISTEN", "h:2")
    monkeypatch.setenv("MLRS_MAX_MESSAGE_BYTES", "4222")
    config = load_config(file, {"listen": "h:3", "max_message_bytes": None, "log_level": None})
    assert (config.listen, config.max_message_bytes, config.drain_timeout_s) == ("h:3", 4222, 1.0)
    assert config.flush_interval_s == ServerConfig().flush_interval_s == 0.1
    assert load_config(None, {}).listen == "h:2"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen", "50051"),
        ("listen", "host:99999"),
        ("listen", ""),
        ("flush_interval_s", 0),
        ("flush_interval_s", "soon"),
        ("drain_timeout_s", -1),
        ("max_message_bytes", 2**31),
        ("log_level", "loud"),
        ("log_format", "xml"),
    ],
)
@pytest.mark.parametrize("source", ["flag", "environment", "file"])
def test_a_wrong_setting_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str, value: Any
) -> None:
    """The error names the setting, and how each source spells it."""
    file, flags = None, {}
    if source == "flag":
        flags = {name: value}
    elif source == "environment":
        monkeypatch.setenv(f"MLRS_{name.upper()}", str(value))
    else:
        file = tmp_path / "mlrs.toml"
        file.write_text(f"{name} = {value!r}\n")
    spelt = rf"{name}: .*\(--{name.replace('_', '-')}, MLRS_{name.upper()}, or {name} in the file\)"
    with raises(Reason.INVALID_FIELD, match=spelt):
        load_config(file, flags)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:50051", "[::1]:50051", "0.0.0.0:65535"])
def test_addresses_are_taken(listen: str) -> None:
    """Hosts by name and by either kind of address are taken."""
    assert load_config(None, {"listen": listen}).listen == listen


def test_an_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    """A misspelt setting in the file is an error that lists the known ones."""
    file = tmp_path / "mlrs.toml"
    file.write_text("max_mesage_bytes = 3\n")
    with raises(Reason.INVALID_FIELD, match=r"unknown setting 'max_mesage_bytes'; there are: .*max_mes"):
        load_config(file, {})


def test_a_file_that_is_not_there_or_not_toml_is_named(tmp_path: Path) -> None:
    """The path of a config file that cannot be read is in the message."""
    with raises(Reason.INVALID_FIELD, match=r"--config: there is no file .*nowhere\.toml"):
        load_config(tmp_path / "nowhere.toml", {})
    file = tmp_path / "mlrs.toml"
    for text in ("listen == 3", "listen = " + "[" * 2000):
        file.write_text(text)
        with raises(Reason.INVALID_FIELD, match=r"--config: .*mlrs\.toml cannot be read"):
            load_config(file, {})
