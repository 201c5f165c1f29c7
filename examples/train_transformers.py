"""Train a tiny language model with Transformers, advised; print what was evaluated, and how the run began.

The text is sums such as `27+58=85;`, a character a token. The model begins with random weights, and nothing
is downloaded.

python examples/train_transformers.py
"""

from __future__ import annotations

import json
import os
import tempfile
from argparse import ArgumentParser

import torch
from torch.utils.data import Dataset

import mlrs
from mlrs.transformers import advised

os.environ.setdefault("HF_HUB_OFFLINE", "1")
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

CHARACTERS = "0123456789+=;"


class Sums(Dataset[dict[str, torch.Tensor]]):
    """Sums of two numbers below 100, in lines of 32 characters."""

    def __init__(self, lines: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        text = ""
        while len(text) < 32 * lines:
            first, second = torch.randint(100, (2,), generator=generator).tolist()
            text += f"{first}+{second}={first + second};"
        tokens = torch.tensor([CHARACTERS.index(one) for one in text[: 32 * lines]])
        self.lines = tokens.view(lines, 32)

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.lines[index], "labels": self.lines[index]}


def main() -> None:
    """Train and report."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--address", help="the daemon, HOST:PORT; default: this user's own")
    parser.add_argument("--task", default="sums-transformers", help="what is trained")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    size = {"vocab_size": len(CHARACTERS), "n_positions": 32, "n_embd": 48, "n_layer": 2, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    with tempfile.TemporaryDirectory() as folder, mlrs.connect(arguments.address) as advisor:
        settings = TrainingArguments(
            folder,
            use_cpu=True,
            max_steps=arguments.steps,
            per_device_train_batch_size=16,
            eval_strategy="steps",
            eval_steps=arguments.steps // 10,
            save_strategy="no",
            logging_steps=20,
            report_to="none",
            disable_tqdm=True,
            seed=arguments.seed,
        )
        trainer = Trainer(model, settings, train_dataset=Sums(1600, 0), eval_dataset=Sums(64, 1))
        trainer = advised(trainer, arguments.task, advisor=advisor)
        trainer.train()
        print(json.dumps({"why": trainer.run.why, "steps": trainer.state.global_step}))
        print(json.dumps({"eval_loss": trainer.evaluate()["eval_loss"]}))


if __name__ == "__main__":
    main()
