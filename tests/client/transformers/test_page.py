"""The blocks of the page about Transformers, and of the adapter's docstrings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.frameworks import framework

framework("transformers")

from transformers import Trainer  # noqa: E402 # after the framework that may be missing

from mlrs.transformers import AdvisedTrainerMixin, advised  # noqa: E402
from tests.client.fake_daemon import FakeDaemon  # noqa: E402
from tests.client.transformers.trainings import Tokens, arguments, model  # noqa: E402
from tests.docs.blocks import Block  # noqa: E402
from tests.support.pages import framework_blocks, run_block, served  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # those of Transformers and Accelerate are not ours


@pytest.mark.parametrize("block", framework_blocks("transformers"), ids=str)
def test_block(block: Block, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block runs, and what it trains is advised to the end."""
    monkeypatch.chdir(tmp_path)
    names = {
        "Trainer": Trainer,
        "AdvisedTrainerMixin": AdvisedTrainerMixin,
        "advised": advised,
        "model": model(),
        "arguments": arguments(tmp_path, max_steps=5),
        "dataset": Tokens(),
    }
    with served(daemon.target, monkeypatch):
        run_block(block, names)
    assert [record.finished for record in daemon.runs.values()] == [True] * block.text.count(".train(")
