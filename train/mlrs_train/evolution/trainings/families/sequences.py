"""A character GRU and a one-block transformer, on sequences of random Markov chains and automata."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.trainings.families.data import draw_count
from mlrs_train.evolution.trainings.families.networks import cross_entropy, dense, dense_params
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.tasks import Batch, Examples, Params

LENGTH = 12
"""Characters that are predicted in an example."""
VALID, MOST = 200, 1000
"""Examples that a result is judged on, and the most that are trained on."""


def gru(draw: Draw) -> Problem:
    """Return a character model: one gated recurrent layer."""
    width = draw.pick((12, 24))

    def build(characters: int) -> Params:
        gain = draw.log_uniform(0.5, 2)
        return {
            **dense_params(draw, "inputs", characters, 3 * width, gain=gain * (characters / width) ** 0.5),
            **dense_params(draw, "hidden", width, 3 * width, gain=gain),
            **dense_params(draw, "head", width, characters),
        }

    return _model(draw, build, _gru_logits, batch_sizes=(8, 16))


def transformer(draw: Draw) -> Problem:
    """Return a character model: embedding, causal attention of two heads, a perceptron; all residual."""
    width = draw.pick((12, 16, 24))

    def build(characters: int) -> Params:
        gain = draw.log_uniform(0.5, 1.5)
        return {
            "positions": 0.3 * draw.normal(LENGTH, width),
            **dense_params(draw, "embedding", characters, width, gain=characters**0.5 * gain),
            **dense_params(draw, "attention", width, 3 * width, gain=gain),
            **dense_params(draw, "mixed", width, width, gain=gain),
            **dense_params(draw, "up", width, 2 * width, gain=gain),
            **dense_params(draw, "down", 2 * width, width, gain=gain),
            **dense_params(draw, "head", width, characters),
            **{f"{name}.scale": torch.ones(width) for name in ("attention", "up", "head")},
        }

    return _model(draw, build, _transformer_logits, batch_sizes=(4, 8))


def _model(
    draw: Draw,
    build: Callable[[int], Params],
    logits: Callable[[Params, Tensor], Tensor],
    *,
    batch_sizes: Sequence[int],
) -> Problem:
    """Return a character model on random sequences."""
    characters, count = draw.whole(4, 16), VALID + draw_count(draw, MOST)
    text = (_markov if draw.chance(0.5) else _automaton)(draw, characters, count)
    inputs, targets = functional.one_hot(text[:, :-1], characters).float(), text[:, 1:]
    valid, train = Examples(inputs, targets).split((VALID, count - VALID))

    def losses(params: Params, batch: Batch) -> Tensor:
        return cross_entropy(logits(params, batch[0]), batch[1].flatten())

    return Problem(
        params=build(characters),
        losses=losses,
        train=train,
        valid=valid,
        batch_size=draw.pick(batch_sizes),
        num_classes=characters,
    )


def _markov(draw: Draw, characters: int, count: int) -> Tensor:
    """Return texts, (count, LENGTH + 1) int64: each character depends on the two before it."""
    sharpness = draw.uniform(1, 4)
    chances = (sharpness * draw.normal(characters, characters, characters)).softmax(-1)
    text = draw.integers(characters, count, LENGTH + 1)
    for position in range(2, LENGTH + 1):
        following = chances[text[:, position - 2], text[:, position - 1]]
        text[:, position] = torch.multinomial(following, 1, generator=draw.tensors).squeeze(1)
    return text


def _automaton(draw: Draw, characters: int, count: int) -> Tensor:
    """Return texts of a regular language: a hidden state, two or three ways to leave it, some noise."""
    states, ways = draw.whole(3, 10), draw.whole(2, 3)
    follow, write = draw.integers(states, states, ways), draw.integers(characters, states, ways)
    state, text = draw.integers(states, count), torch.empty(count, LENGTH + 1, dtype=torch.long)
    for position in range(LENGTH + 1):
        way = draw.integers(ways, count)
        text[:, position], state = write[state, way], follow[state, way]
    noise = draw.rand(count, LENGTH + 1) < draw.uniform(0, 0.1)
    return torch.where(noise, draw.integers(characters, count, LENGTH + 1), text)


def _gru_logits(params: Params, inputs: Tensor) -> Tensor:
    """Return logits (n, rows * LENGTH, C) from one-hot characters (rows, LENGTH, C)."""
    copies, rows = len(params["head.weight"]), len(inputs)
    moved = dense(params, "inputs", inputs.flatten(0, 1)).view(copies, rows, LENGTH, -1)
    hidden = moved.new_zeros(copies, rows, moved.shape[-1] // 3)
    outputs = []
    for seen in moved.unbind(2):
        reset, update, fresh = seen.chunk(3, -1)
        kept_reset, kept_update, kept = dense(params, "hidden", hidden).chunk(3, -1)
        gate = torch.sigmoid(update + kept_update)
        candidate = torch.tanh(fresh + torch.sigmoid(reset + kept_reset) * kept)
        hidden = candidate + gate * (hidden - candidate)
        outputs.append(hidden)
    return dense(params, "head", torch.stack(outputs, 2).flatten(1, 2))


def _transformer_logits(params: Params, inputs: Tensor) -> Tensor:
    """Return logits (n, rows * LENGTH, C) from one-hot characters (rows, LENGTH, C)."""
    copies, rows = len(params["head.weight"]), len(inputs)
    stream = dense(params, "embedding", inputs.flatten(0, 1))
    stream = stream + params["positions"].repeat(1, rows, 1)
    width = stream.shape[-1]
    parts = dense(params, "attention", _normed(params, "attention", stream))
    query, key, value = parts.view(copies * rows, LENGTH, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    stream = stream + dense(params, "mixed", mixed.transpose(1, 2).reshape(copies, rows * LENGTH, width))
    raised = functional.gelu(dense(params, "up", _normed(params, "up", stream)))
    stream = stream + dense(params, "down", raised)
    return dense(params, "head", _normed(params, "head", stream))


def _normed(params: Params, name: str, stream: Tensor) -> Tensor:
    """Return the stream, each row normalised, times a layer's own scales."""
    normed = functional.layer_norm(stream, stream.shape[-1:])
    return normed * params[f"{name}.scale"].unsqueeze(1)
