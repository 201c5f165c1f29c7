"""`mlrs models promote`, `rollback`, `history` and `diff` against a real daemon and its data folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mlrs
from mlrs_cli.admin import channel_to
from mlrs_cli.root import DaemonAddress, command
from mlrs_core.models.checkpoint import dump_model, read_model
from mlrs_core.models.model import Model
from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from tests.support.daemon import Daemon, write_random_model

RUNS = 23


def _models(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(command, ["models", *map(str, arguments)])


def _good(*arguments: object) -> str:
    result = _models(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def adapted(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with `RUNS` runs that have adapted the model `tiny`, number 5 in twice as many updates."""
    model = write_random_model(tmp_path / "tiny.safetensors")
    with Daemon(tmp_path / "data", "--flush-interval-s", "0.05") as running:
        _good("import", "--data-dir", running.data_dir, "--name", "tiny", model)
        with channel_to(DaemonAddress(address=running.address)) as channel:
            stub = AdvisorServiceStub(channel)
            meta = pb.Meta(scope=pb.ADAPT_SCOPE_MODEL, learning_rate=0.01)
            for number in range(RUNS):
                run_id = f"run-{number:02}"
                config = pb.RunConfig(model="tiny", horizon=50, num_classes=10, meta=meta)
                stub.OpenRun(pb.OpenRunRequest(run_id=run_id, config=config), timeout=20)
                for step in range(2 + 2 * (number == 5)):
                    stub.Advise(pb.AdviseRequest(run_id=run_id, step=step, loss=2.0 - step / 4), timeout=20)
                    update = pb.AdaptRequest(run_id=run_id, step=step, alignment=-1.0 - number)
                    stub.Adapt(update, timeout=20)
        yield running


def test_a_version_is_looked_at_made_and_taken_back(adapted: Daemon) -> None:
    """The commands, in the order of their help: a dry run, a promotion, a diff, a history, a rollback."""
    at = ("--address", adapted.address)
    _good("alias", "stable", "tiny", *at)
    looked = _good("promote", "tiny", "--dry-run", "--alias", "stable", *at)
    assert "nothing was made" in looked
    assert "... and 3 more" in looked
    assert re.search(r"run-05 +\S? *4 ", looked)
    made = _good("promote", "tiny", "--alias", "stable", *at)
    ref = made.split("made ")[1].split()[0]
    assert f"{ref} of {RUNS} runs, " in made
    assert f"stable is {ref} from now on" in made
    share = r"\d\.\d+% from tiny"
    assert re.findall(share, looked) == re.findall(share, made)
    difference = _good("diff", "tiny", "stable", "--data-dir", adapted.data_dir)
    assert "head.weight" in difference
    assert "snapshot 2" in difference
    assert re.search(r"noisy .*x1\.\d", difference)
    output = _good("history", "stable", *at)
    assert re.search(rf"\d\d:\d\d:\d\d .*{ref} .*promote", output)
    assert output.index("promote") < output.index(" set")
    assert "stable is tiny@" in _good("rollback", "stable", *at)
    assert _good("history", "stable", *at).count("rollback") == 1


def test_runs_are_chosen(adapted: Daemon) -> None:
    """`--prefix` and `--min-updates` say whose runs count; without an alias the version has its reference."""
    at = ("--address", adapted.address)
    assert "of 10 runs" in _good("promote", "tiny", "--prefix", "run-0", "--dry-run", *at)
    made = _good("promote", "tiny", "--min-updates", 4, *at)
    assert "of 1 run, " in made
    ref = made.split("made ")[1].split()[0]
    assert ref in _good("list", *at)
    with mlrs.connect(adapted.address) as advisor:
        parent = advisor.model("tiny").ref
    assert ref != parent
    lineage = _good("history", ref, *at)
    assert lineage.index(ref) < lineage.index(parent)
    assert re.search(r"pooled .*1 .*4", lineage)
    assert "random" in lineage


def test_wrong_uses_are_clear_errors(adapted: Daemon) -> None:
    """What cannot be done names the way out, without a traceback."""
    at = ("--address", adapted.address)
    for arguments, message in [
        (["promote", "tiny", "--prefix", "x", *at], "ADAPT_SCOPE_MODEL"),
        (["promote", "tiny", "--min-updates", "0", *at], "--min-updates"),
        (["promote", "nobody", *at], "this daemon knows"),
        (["rollback", "nobody", *at], "this daemon knows"),
        (["history", "nobody", *at], "nobody"),
        (["history", "stable", "--address", "127.0.0.1:1"], "127.0.0.1:1"),
        (["diff", "tiny", "nobody", "--data-dir", adapted.data_dir], "this daemon knows"),
        (["diff", "tiny", "nobody.safetensors", "--data-dir", adapted.data_dir], "nobody.safetensors"),
        (["diff", "tiny", "tiny", "--tenant", "A!", "--data-dir", adapted.data_dir], "tenant"),
    ]:
        result = _models(*arguments)
        assert result.exit_code in {1, 2}, arguments
        assert message in result.output
        assert "Traceback" not in result.output


def test_a_lineage_ends_where_its_models_do(tmp_path: Path) -> None:
    """A version whose parent is not here says so."""
    with Daemon(tmp_path / "data") as running:
        parent, _ = read_model(write_random_model(tmp_path / "p.safetensors"))
        provenance = {"method": "pooled", "parent": "gone@" + 64 * "a", "run_count": 1200, "updates": 9000}
        child = Model(architecture=parent.architecture, snapshots=parent.snapshots, provenance=provenance)
        (tmp_path / "c.safetensors").write_bytes(dump_model(child))
        _good("import", "--data-dir", running.data_dir, "--name", "child", tmp_path / "c.safetensors")
        output = _good("history", "child", "--address", running.address)
    assert re.search(r"pooled .*1,200 .*9,000", output)
    assert re.search(r"gone@aaaaaaaaaaaa .*not on this daemon", output)


def test_a_diff_can_be_drawn(tmp_path: Path) -> None:
    """`--plot` writes a picture, also of models that have no weights in common."""
    first = write_random_model(tmp_path / "a.safetensors")
    second = write_random_model(tmp_path / "b.safetensors", hidden_size=4)
    output = _good("diff", first, second, "--data-dir", tmp_path / "d", "--plot", tmp_path / "difference.png")
    assert "not comparable" in output
    assert (tmp_path / "difference.png").read_bytes().startswith(b"\x89PNG")
    refused = _models(
        "diff", first, second, "--data-dir", tmp_path / "d", "--plot", tmp_path / "no" / "x.png"
    )
    assert refused.exit_code == 1
    assert "x.png" in refused.output


@pytest.mark.parametrize("command", ["promote", "rollback", "history", "diff"])
def test_help_teaches(command: str) -> None:
    """Each command says what it does in words, with what to type."""
    output = _good(command, "--help")
    assert "mlrs models" in output
    assert "runs" in output or "models" in output
