"""A trainer of TRL, which counts and logs more than `Trainer` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.frameworks import framework

framework("transformers")
trl = framework("trl")

from datasets import Dataset  # noqa: E402 # after the framework that may be missing
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

import mlrs  # noqa: E402
from mlrs.transformers import advised  # noqa: E402
from tests.client.fake_daemon import TRIED, FakeDaemon, lr_sequence  # noqa: E402
from tests.client.transformers.trainings import model, watch, weights  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # those of TRL and what it imports are not ours
WORDS = 14


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of numbers below `WORDS`."""
    words = {**{str(word): word for word in range(WORDS)}, "<pad>": WORDS, "<eos>": WORDS + 1}
    tokens = Tokenizer(models.WordLevel(words, unk_token="<pad>"))  # noqa: S106  # no secret
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", eos_token="<eos>")  # noqa: S106


def test_supervised_finetuning(daemon: FakeDaemon, advisor: mlrs.Advisor, tmp_path: Path) -> None:
    """Updates use the advice for the logged loss, and a search leaves no trace in weights and logs."""
    rows = [{"text": " ".join(str(row * word % WORDS) for word in range(6))} for row in range(48)]
    seen: list[Any] = []
    for search in (True, False):
        settings = trl.SFTConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            max_steps=10,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            max_length=8,
        )
        trainer = trl.SFTTrainer(
            model=model(), args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer()
        )
        id_ = f"run-{search}"
        advised(trainer, "task", advisor=advisor, search=search, memory=False, id=id_, horizon=1000)
        used = watch(trainer)
        trainer.train()
        record = daemon.runs[id_]
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert used[-10:] == lr_sequence(record.losses) == [entry["learning_rate"] for entry in logs]
        assert record.losses == pytest.approx([entry["loss"] for entry in logs], rel=1e-6)
        seen.append([record.losses, weights(trainer), logs])
    assert seen[0] == seen[1]
    assert [len(one.results) for one in daemon.runs["run-True"].searches] == [len(TRIED)]
