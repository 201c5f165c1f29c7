"""The blocks of the page about Lightning, and of the adapter's docstrings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.frameworks import framework

lightning = framework("lightning")

from mlrs.lightning import AdvisedLR  # noqa: E402 # after the framework that may be missing
from tests.client.fake_daemon import FakeDaemon  # noqa: E402
from tests.client.lightning.trainings import Fit, batches  # noqa: E402
from tests.docs.blocks import Block  # noqa: E402
from tests.support.pages import framework_blocks, run_block, served  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice


@pytest.mark.parametrize("block", framework_blocks("lightning"), ids=str)
def test_block(block: Block, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block runs, and what it fits is advised to the end."""
    monkeypatch.chdir(tmp_path)

    class Data(lightning.LightningDataModule):
        def train_dataloader(self) -> Any:
            return batches()

    names = {"lightning": lightning, "AdvisedLR": AdvisedLR, "model": Fit(), "loader": batches()}
    with served(daemon.target, monkeypatch):
        run_block(block, {**names, "datamodule": Data()})
    assert [record.finished for record in daemon.runs.values()] == [True] * block.text.count(".fit(")
