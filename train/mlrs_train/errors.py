"""What can go wrong in meta-training, besides a setting out of range.

TrainError
├── RunExistsError        the folder already holds a training
├── NoRunError            the folder holds none to resume
├── SettingChangedError   a resumed training was given another value of a setting; names it
├── CheckpointError       a checkpoint cannot be read
└── DivergedError         a base learner's loss is not finite any more

A setting out of range raises `mlrs_core.errors.InvalidFieldError`.
"""

from __future__ import annotations


class TrainError(Exception):
    """Root of meta-training's exceptions."""


class TrainingExistsError(TrainError):
    """The folder already holds a training."""


class NoTrainingError(TrainError):
    """The folder holds no training to resume."""


class SettingChangedError(TrainError):
    """A resumed training was given another value of a setting.

    Attributes:
        setting: its name.
    """

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(message)
        self.setting = setting


class CheckpointError(TrainError):
    """A checkpoint cannot be read."""


class DivergedError(TrainError):
    """A base learner's loss is not finite any more."""
