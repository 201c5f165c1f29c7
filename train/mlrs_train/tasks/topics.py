"""English text (the topics of Python's `help()`) with a character model: which one comes next?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlrs_train.tasks.task import BaseTask, Examples, module_task

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""The characters with a class each; all others are one class, the last. Fixed, though the text is not the
same in every version of Python."""
WINDOW = 32
"""Characters in an example."""


def topics_char(generator: torch.Generator) -> BaseTask:
    """Return the task: 97 classes, a GRU of 28,000 parameters, batches of 64 windows."""
    from pydoc_data.topics import topics

    index = {character: number for number, character in enumerate(ALPHABET)}
    text = "\n".join(topics.values())
    codes = torch.tensor([index.get(character, len(ALPHABET)) for character in text])
    whole = (len(codes) - 1) // WINDOW * WINDOW
    examples = Examples(codes[:whole].reshape(-1, WINDOW), codes[1 : whole + 1].reshape(-1, WINDOW))
    held = len(examples) // 10
    # The parts are long stretches of text: shuffled windows would be continued in one another.
    train, held_out, test = examples.split((len(examples) - 2 * held, held, held))
    order = torch.randperm(len(train), generator=generator)
    parts = (Examples(*train.take(order)), held_out, test)
    return module_task(_CharacterModel, num_classes=len(ALPHABET) + 1, parts=parts, batch_size=64)


class _CharacterModel(nn.Module):
    """Embedding, GRU, logits at every position: (n, WINDOW) codes to (n, WINDOW, C)."""

    def __init__(self) -> None:
        super().__init__()
        classes = len(ALPHABET) + 1
        self.embedding = nn.Embedding(classes, 32)
        self.recurrent = nn.GRU(32, 64, batch_first=True)
        self.head = nn.Linear(64, classes)

    def forward(self, codes: Tensor) -> Tensor:
        hidden, _ = self.recurrent(self.embedding(codes))
        logits: Tensor = self.head(hidden)
        return logits
