"""What the inputs of the network are worth: the same lessons, seen in part.

Takes the last checkpoint of a warm start, and makes the warm start again from the lessons in it, once for
each `--inputs`: as many steps, from the same first weights, under the same learning rates. Minutes, where
the training took an hour. `all` is the control, which is made in the same way. What differs from a
training of their own: all lessons are there from the beginning; they were taken with the network that sees
everything, whose runs the others learn from as they do from the teachers'; and none goes on by evolution.

`progress` must not learn about losses from the rates that they led to, so its own rate so far is hidden
from it as well. It could work that out: without losses, it is a function of the step.

    mlrs train evolution --updates 900 --cloning-updates 900 --hidden-size 32 --out runs/clone
    python -m performance.training.ablations runs/clone/checkpoint.pt --out runs/ablations
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from mlrs_train.evolution.cloning.study import Study
from rich.progress import track

from mlrs_core.models.checkpoint import digest_of, dump_model
from mlrs_core.networks.drift.constants import FEATURES, LOSS_FEATURES, PROGRESS_FEATURES
from mlrs_train.checkpoint import load_checkpoint
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.method import STUDY, Evolution
from mlrs_train.evolution.sample import unpack
from mlrs_train.evolution.settings import EvolutionSettings

OWN_RATE = slice(LOSS_FEATURES + PROGRESS_FEATURES, LOSS_FEATURES + PROGRESS_FEATURES + 2)
"""The features that are the log-LR so far."""


def mask_of(settings: EvolutionSettings) -> torch.Tensor:
    """Return 1 for each feature that the network sees, else 0: (FEATURES,)."""
    mask = torch.tensor(settings.architecture().feature_mask())
    if settings.inputs == "progress":
        mask[OWN_RATE] = 0
    return mask


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--inputs", default="all,progress,loss", help="which, separated by commas")
    parser.add_argument("--out", type=Path, required=True, help="folder for INPUTS.safetensors")
    options = parser.parse_args()
    torch.set_num_threads(1)
    saved: dict[str, Any] = load_checkpoint(options.checkpoint)
    lessons = saved["state"]["study"]
    if not lessons:
        sys.exit(f"{options.checkpoint} holds no lessons: take it before the warm start is over")
    options.out.mkdir(parents=True, exist_ok=True)
    for inputs in options.inputs.split(","):
        settings = dataclasses.replace(EvolutionSettings(**saved["settings"]), inputs=inputs)
        training, study = Evolution(settings), Study(settings.architecture())
        mask = mask_of(settings)
        study.load_state_dict({**lessons, "features": lessons["features"] * mask.half()})
        for update in track(range(settings.cloned), description=inputs):
            draw, lr = Draw(STUDY, settings.seed, update), training.meta_lr()
            for _ in range(settings.cloning_steps):
                training.search.step(study.gradient(training.search.phi, draw), lr)
            training.steps_done += 1
        # Weights of what it never saw are as they began, and would read it in a served run.
        weights = unpack(settings.architecture(), training.search.average[None])
        weights["cell.weight"][..., :FEATURES] *= mask  # a view of the average
        facts = {"made_by": "performance/training/ablations.py", "settings": settings.to_json()}
        data = dump_model(training.model(facts))
        path = options.out / f"{inputs}.safetensors"
        path.write_bytes(data)
        print(f"{path}: sha256 {digest_of(data)}")


if __name__ == "__main__":
    main()
