"""Matrix factorisation: embeddings, of which a batch moves few."""

from __future__ import annotations

import torch
from torch import Tensor

from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.tasks import Batch, Examples, Params


def factors(draw: Draw) -> Problem:
    """Return the squared error of ratings that are products of a row's and a column's factors, with noise."""
    rows, columns, rank = draw.whole(20, 120), draw.whole(20, 120), draw.whole(2, 6)
    width, count = draw.pick((4, 8)), draw.pick((1000, 2000, 4000))
    true_rows, true_columns = draw.normal(rows, rank), draw.normal(columns, rank)
    indices = torch.stack([draw.integers(rows, count), draw.integers(columns, count)], dim=1)
    clean = (true_rows[indices[:, 0]] * true_columns[indices[:, 1]]).sum(1) / rank**0.5
    ratings = (clean + draw.log_uniform(0.03, 1) * draw.normal(count)) * draw.log_uniform(0.3, 3)
    size = draw.log_uniform(0.03, 0.5)

    def losses(params: Params, batch: Batch) -> Tensor:
        chosen, targets = batch
        left, right = params["rows.weight"][:, chosen[:, 0]], params["columns.weight"][:, chosen[:, 1]]
        guesses = (left * right).sum(2) + params["bias"]
        difference: Tensor = guesses - targets
        return difference.square().mean(1)

    train, valid = Examples(indices, ratings).split((count - count // 5, count // 5))
    return Problem(
        params={
            "rows.weight": size * draw.normal(rows, width),
            "columns.weight": size * draw.normal(columns, width),
            "bias": torch.zeros(1),
        },
        losses=losses,
        train=train,
        valid=valid,
        batch_size=draw.pick((16, 32, 64)),
        num_classes=None,
    )
