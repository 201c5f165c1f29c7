"""`mlrs models` against a real daemon and its data folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import mlrs
from mlrs_cli.root import command
from mlrs_core.networks.paper import PaperSpec
from mlrs_core.networks.paper.reference import PaperNet
from tests.support.daemon import Daemon, write_random_model
from tests.support.postgres import postgres_or_skip
from tests.support.runs import open_run


def _models(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(command, ["models", *map(str, arguments)])


def _official_file(path: Path, seed: int) -> Path:
    """Write random weights as the authors' code saves them."""
    torch.manual_seed(seed)
    names = {"layers.0.i2h": "layer1.fc_i2h", "layers.0.h2h": "layer1.fc_h2h", "head": "layer3"}
    state = PaperNet(PaperSpec(hidden_size=4)).state_dict()
    renamed = {}
    for name, tensor in state.items():
        prefix = next(ours for ours in names if name.startswith(ours))
        renamed[names[prefix] + name.removeprefix(prefix)] = tensor
    torch.save(renamed, path)
    return path


def test_an_import_is_seen_by_a_running_daemon(daemon: Daemon, tmp_path: Path) -> None:
    """A model imported beside a running daemon can be listed, shown and used at once."""
    files = [_official_file(tmp_path / f"{number}.pth", number) for number in range(3)]
    result = _models(
        "import", "--data-dir", daemon.data_dir, "--name", "fresh", "--gate-layout", "ifgo", *files
    )
    assert result.exit_code == 0, result.output
    ref = result.output.split()[1]
    assert ref in _models("list", "--address", daemon.address).output
    shown = json.loads(_models("show", "fresh", "--address", daemon.address).output)
    assert (shown["model"], shown["snapshots"], shown["architecture"]["hidden_size"]) == (ref, 3, 4)
    with mlrs.connect(daemon.address) as advisor:
        assert open_run(advisor, "uses-fresh", model="fresh").config.model == ref


def test_an_import_needs_no_daemon(tmp_path: Path) -> None:
    """A model goes into a store that no daemon has, also where one was killed, and a daemon finds it."""
    model = write_random_model(tmp_path / "m.safetensors", seed=3)
    arguments = ["import", "--data-dir", tmp_path / "data", "--name"]
    running = Daemon(tmp_path / "data")
    with running:
        result = _models(*arguments, "mine", "--replace", model)
        assert result.exit_code == 1
        assert running.address in result.output
        assert "mlrs models alias" in result.output
        running.kill()
        result = _models(*arguments, "mine", "--tenant", "acme", model)
        assert result.exit_code == 0, result.output
        assert f"into {tmp_path / 'data' / 'mlrs.sqlite3'}" in result.output
        assert _models(*arguments, "shared", model).exit_code == 0
        running.start()
        listed = _models("list", "--address", running.address).output
        assert "shared@" in listed
        assert "mine@" not in listed


def test_an_import_into_a_database_is_seen_by_its_daemons(tmp_path: Path) -> None:
    """Daemons that share a database find what is imported into it, whichever folder they have."""
    server = postgres_or_skip()
    try:
        url = server.new_database()
        with Daemon(tmp_path / "data", environment={"MLRS_STORE": url}) as running:
            model = write_random_model(tmp_path / "m.safetensors", seed=3)
            elsewhere = ["--data-dir", tmp_path / "elsewhere", "--store", url]
            result = _models("import", *elsewhere, "--name", "mine", model)
            assert result.exit_code == 0, result.output
            ref = result.output.split()[1]
            assert ref in _models("list", "--address", running.address).output
            assert _models("diff", *elsewhere, "mine", ref).exit_code == 0
    finally:
        server.remove()


def test_list_marks_the_default(daemon: Daemon) -> None:
    """`list` shows which model runs get that name none."""
    (line,) = [
        line for line in _models("list", "--address", daemon.address).output.splitlines() if "tiny@" in line
    ]
    assert "default" in line


def test_a_name_moves_only_when_asked(tmp_path: Path) -> None:
    """Importing another model under a taken name is refused, and allowed with `--replace`."""
    first = write_random_model(tmp_path / "first.safetensors", seed=1)
    second = write_random_model(tmp_path / "second.safetensors", seed=2)
    arguments = ["import", "--data-dir", tmp_path / "data", "--name", "mine"]
    assert _models(*arguments, first).exit_code == 0
    assert _models(*arguments, first).exit_code == 0
    refused = _models(*arguments, second)
    assert refused.exit_code == 1
    assert "--replace" in refused.output
    assert _models(*arguments, "--replace", second).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plain.pth"], "--gate-layout"),
        (["one.safetensors", "two.safetensors"], "one .safetensors file"),
        (["one.safetensors", "plain.pth"], "not both"),
        (["--gate-layout", "ifgo", "plain.pth"], "plain.pth"),
        (["one.safetensors"], "one.safetensors"),
        (["--gate-layout", "gifo", "plain.pth"], "--gate-layout"),
        (["missing.pth"], "missing.pth"),
    ],
)
def test_wrong_files_are_clear_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """Each wrong use of `import` names the option or the file at fault, without a traceback."""
    monkeypatch.chdir(tmp_path)
    for name in ("one.safetensors", "two.safetensors", "plain.pth"):
        Path(name).write_bytes(b"not a model")
    result = _models("import", "--data-dir", "data", "--name", "mine", *arguments)
    assert result.exit_code in {1, 2}
    assert message in result.output
    assert "Traceback" not in result.output
