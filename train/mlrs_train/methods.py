"""The methods of meta-training: their settings by name, and trainings made of them."""

from __future__ import annotations

from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.hypergradient.settings import HypergradientSettings
from mlrs_train.method import Settings, TrainingMethod

SETTINGS: dict[str, type[Settings]] = {
    EvolutionSettings.method: EvolutionSettings,
    HypergradientSettings.method: HypergradientSettings,
}
"""The settings of each method, by its name."""


def start_training(settings: Settings) -> TrainingMethod:
    """Return a training with some settings, at its first step. This imports torch.

    Raises:
        InvalidFieldError: the settings name a task or a family that is unknown.
    """
    match settings:
        case EvolutionSettings():
            from mlrs_train.evolution.method import Evolution

            return Evolution(settings)
        case HypergradientSettings():
            from mlrs_train.hypergradient.method import Hypergradient
            from mlrs_train.tasks import load_tasks

            return Hypergradient(settings, load_tasks(settings.tasks))
    raise TypeError(f"no method has settings of type {type(settings).__name__}")
