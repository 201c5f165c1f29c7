"""What a search costs beside its own training steps, and whether it gives its memory back.

A convolutional network of 160,000 parameters searches through a daemon. In turn, the same steps and the same
measurements of the loss are made by a plain loop, without saving, restoring or a daemon.

    python -m performance.training.search [--rounds 9]
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import time

import torch
from torch import nn
from torch.nn import functional

import mlrs
from mlrs.torch import AdvisedLR
from performance.shared.blocks import ratio, take_turns
from performance.shared.servers import daemon

HORIZON = 4_000
"""Whose trials have the most steps that a search of moderate length gives them, 40."""
BATCH = 128
"""Images in a step."""


def network() -> nn.Module:
    """Return a network for images of 3 by 32 by 32."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def loss_fn(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return the cross-entropy of a batch."""
    return functional.cross_entropy(model(batch[0]), batch[1])


def tensor_bytes() -> int:
    """Return the memory of all tensors that there are."""
    gc.collect()
    storages = {
        one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
        for one in gc.get_objects()
        if issubclass(type(one), torch.Tensor)
    }
    return sum(storages.values())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="searches, each beside a plain loop")
    rounds = parser.parse_args().rounds
    os.environ["MLRS_QUIET"] = "1"
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(BATCH, 3, 32, 32, generator=generator), torch.randint(10, (BATCH,), generator=generator))
        for _ in range(64)
    ]
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    made: list[mlrs.SearchResult] = []
    kept: list[int] = []
    with daemon() as server, mlrs.connect(server.address) as advisor:

        def searched() -> float:
            run = advisor.run("search", horizon=HORIZON, num_classes=10, memory=False)
            scheduler = AdvisedLR(optimizer, run)
            before = tensor_bytes()
            since = time.perf_counter()
            made.append(scheduler.search(model, loss_fn, batches))
            seconds = time.perf_counter() - since
            kept.append(tensor_bytes() - before)
            scheduler.detach()
            return seconds

        def plain() -> float:
            copy = network()
            other = torch.optim.SGD(copy.parameters(), lr=0.0, momentum=0.9)
            since = time.perf_counter()
            for trial in made[-1].trials:
                for batch in itertools.islice(batches, 4, 4 + trial.steps):
                    other.zero_grad()
                    loss = loss_fn(copy, batch)
                    loss.backward()  # type: ignore[no-untyped-call]  # torch's
                    other.step()
                    loss.item()
                with torch.no_grad():
                    for batch in batches[:4]:
                        loss_fn(copy, batch).item()
            return time.perf_counter() - since

        taken = take_turns({"search": searched, "plain": plain}, rounds)
    beside = ratio(taken["search"], taken["plain"])
    found = made[-1]
    print(f"trials {len(found.trials)}, steps {found.steps}, found {found.learning_rate}")
    print(f"search {min(taken['search']):.2f} s, the same steps alone {min(taken['plain']):.2f} s")
    print(f"ratio {beside['median']:.3f} [{beside['low']:.3f}, {beside['high']:.3f}] over {rounds} rounds")
    print(f"memory of tensors after a search over before: {max(kept):+,} bytes at most")


if __name__ == "__main__":
    main()
