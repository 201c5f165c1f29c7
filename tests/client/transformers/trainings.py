"""Small trainings with Transformers: a tiny language model with random weights on random tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

ROWS = 48


class Tokens(Dataset[dict[str, torch.Tensor]]):
    """Rows of tokens, the same each time, with labels of which some do not count."""

    def __init__(self, rows: int = ROWS) -> None:
        generator = torch.Generator().manual_seed(1)
        self.tokens = torch.randint(0, 16, (rows, 8), generator=generator).cumsum(1) % 16

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = self.tokens[index]
        labels = tokens.clone()
        labels[: 1 + index % 4] = -100
        return {"input_ids": tokens, "labels": labels}


def model() -> GPT2LMHeadModel:
    """Return a model of a few hundred weights, with dropout."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
    )


def arguments(folder: Path, **settings: Any) -> TrainingArguments:
    """Return the arguments of a quiet training on the CPU."""
    return TrainingArguments(
        output_dir=str(folder),
        **{
            "use_cpu": True,
            "per_device_train_batch_size": 4,
            "num_train_epochs": 3,
            "learning_rate": 0.01,
            "logging_steps": 1,
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "no",
            "dataloader_pin_memory": False,
            **settings,
        },
    )


def watch(trainer: Trainer) -> list[float]:
    """Return a list that gets the learning rate of each update."""
    used: list[float] = []
    create = trainer.create_optimizer

    def created(*args: Any, **kwargs: Any) -> Any:
        optimizer = create(*args, **kwargs)
        optimizer.register_step_post_hook(
            lambda optimizer, _args, _kwargs: used.append(float(optimizer.param_groups[0]["lr"]))
        )
        return optimizer

    trainer.create_optimizer = created
    return used


def weights(trainer: Trainer) -> list[float]:
    """Return all weights, to the bit."""
    return [float(one) for part in trainer.model.state_dict().values() for one in part.reshape(-1)]
