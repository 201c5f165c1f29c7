"""Lightning's classes, from whichever of its two packages is installed: `lightning` or `pytorch_lightning`.

They have the same content. A callback of one works in a trainer of the other, which calls it by the names of
its methods.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers.logger import DummyLogger
else:
    try:
        from lightning.pytorch import LightningModule, Trainer
        from lightning.pytorch.callbacks import Callback
        from lightning.pytorch.loggers.logger import DummyLogger
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "lightning":
            raise
        from pytorch_lightning import LightningModule, Trainer
        from pytorch_lightning.callbacks import Callback
        from pytorch_lightning.loggers.logger import DummyLogger

__all__ = ["Callback", "DummyLogger", "LightningModule", "Trainer"]
