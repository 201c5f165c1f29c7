"""`mlrs train` as its users meet it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from mlrs_core.models.checkpoint import digest_of
from mlrs_train.hypergradient.method import Hypergradient
from mlrs_train.method import LogRecord

SMALL = ("hypergradient", "--tasks", "blobs", "--epochs", "3", "--t-val", "2", "--hidden-size", "6")
Invoke = Callable[..., Result]


def test_trains_and_says_where(invoke: Invoke, tmp_path: Path) -> None:
    """The command ends with the model's file and digest."""
    result = invoke(*SMALL, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert digest_of((tmp_path / "run" / "model.safetensors").read_bytes()) in result.output


def test_resume_needs_no_settings(invoke: Invoke, tmp_path: Path) -> None:
    """Resumed, a training takes its own settings."""
    invoke(*SMALL, "--out", tmp_path)
    result = invoke("hypergradient", "--resume", "--out", tmp_path)
    assert result.exit_code == 0, result.output


def test_an_interrupted_training_is_no_success(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted, the command saves, says how to continue, and ends with status 130: no model is there."""
    advance = Hypergradient.advance

    def interrupted(self: Hypergradient) -> LogRecord | None:
        os.kill(os.getpid(), signal.SIGINT)
        return advance(self)

    with monkeypatch.context() as patched:
        patched.setattr(Hypergradient, "advance", interrupted)
        result = invoke(*SMALL, "--out", tmp_path)
    assert result.exit_code == 130, result.output
    assert "mlrs train hypergradient --resume" in result.output
    assert not (tmp_path / "model.safetensors").exists()
    assert invoke("hypergradient", "--resume", "--out", tmp_path).exit_code == 0


def test_a_folder_that_cannot_be_made_is_named(invoke: Invoke, tmp_path: Path) -> None:
    """An --out below a file is a clear error, without a traceback."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = invoke(*SMALL, "--out", tmp_path / "file" / "run")
    assert result.exit_code == 1
    assert "cannot write" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tasks", "blobs,nope"], "'--tasks': 'nope' is unknown; known: digits-cnn, topics-char"),
        (["--tasks", ","], "'--tasks': must name tasks"),
        (["--epochs", "0"], "'--epochs': 0 is not in the range x>=1"),
        (["--t-val", "0"], "'--t-val': 0 is not in the range x>=1"),
        (["--seed", "-1"], "'--seed': -1 is not in the range x>=0"),
        (["--hidden-size", "1"], "'--hidden-size': must be a whole number, 2 to 1024"),
        (["--meta-lr", "nan"], "'--meta-lr': must be finite and > 0"),
        (["--weight-decay", "-1"], "'--weight-decay': -1.0 is not in the range x>=0"),
        (["--gate-layout", "gofi"], "'--gate-layout'"),
        (["--population", "4"], "No such option"),
        (["--workers", "2"], "No such option"),
        (["--resume"], "start one without --resume"),
    ],
)
def test_wrong_options_are_named(invoke: Invoke, tmp_path: Path, arguments: list[str], expected: str) -> None:
    """A wrong value gives an error that names its option, and leaves no folder behind."""
    result = invoke("hypergradient", *arguments, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert expected in " ".join(result.output.replace("│", "").split()).replace("Invalid value for ", "")
    assert not (tmp_path / "run").exists()


def test_folder_in_use(invoke: Invoke, tmp_path: Path) -> None:
    """A folder that holds a training is refused, with the way on."""
    invoke(*SMALL, "--out", tmp_path)
    result = invoke(*SMALL, "--out", tmp_path)
    assert result.exit_code == 2
    assert "go on with --resume" in result.output


def test_resume_with_another_setting(invoke: Invoke, tmp_path: Path) -> None:
    """Another value of a setting is refused by name."""
    invoke(*SMALL, "--out", tmp_path)
    result = invoke("hypergradient", "--resume", "--seed", "4", "--out", tmp_path)
    assert result.exit_code == 2
    assert "--seed" in result.output
    assert "started with 0, not 4" in result.output


def test_missing_extra(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the libraries of meta-training, the error says what to install."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    result = invoke("hypergradient", "--tasks", "digits-cnn", "--out", tmp_path)
    assert result.exit_code == 1
    assert "sklearn.datasets is missing: pip install 'mlrs[train]'" in result.output


def test_help_teaches(invoke: Invoke) -> None:
    """The help has the methods and examples; that of a method the text, default and range of each setting."""
    result = invoke("--help")
    for expected in ("Examples:", "evolution", "hypergradient"):
        assert expected in result.output
    shown = "".join(invoke("hypergradient", "--help").output.split())
    assert "Passesofeachbaselearneroveritstask'sdata.[default:200;x>=1]" in shown
    assert "[default:digits-cnn,topics-char]" in shown


def test_there_is_no_other_method(invoke: Invoke, tmp_path: Path) -> None:
    """A method that there is not is named."""
    result = invoke("magic", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "No such command 'magic'" in result.output


def test_another_method_cannot_go_on(invoke: Invoke, tmp_path: Path) -> None:
    """A training is resumed by the command of its own method."""
    invoke(*SMALL, "--out", tmp_path)
    result = invoke("--resume", "--out", tmp_path)
    assert result.exit_code == 2
    assert "was started with 'hypergradient', not 'evolution'" in " ".join(result.output.split())
