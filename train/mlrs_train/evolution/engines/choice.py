"""Which engine to use. It can be asked for without torch or Ray."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from mlrs_core.errors import InvalidFieldError
from mlrs_train.evolution.engines.engine import EngineError, JobEngine
from mlrs_train.settings import Whole, check_ranges

EngineName = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """What a user asked for. Results do not depend on it, so it is no setting.

    Raises:
        InvalidFieldError: a field is out of range, or does not go with another.
    """

    engine: EngineName = "local"
    """What runs the workers. local: this machine; ray: a Ray cluster (pip install 'mlrs[ray]')."""
    workers: Annotated[int | None, Whole(1)] = None
    """Processes that share the tasks of an update: up to the cores of this machine, and no more than its
    tasks, or some idle. Default: 1; with Ray, one for each core of this machine."""
    ray_address: str | None = None
    """The Ray cluster to use; auto: the one that this machine is part of. Default: a cluster of its own on
    this machine, for as long as the training runs."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_ranges(self)
        if self.engine not in (known := get_args(EngineName)):
            raise InvalidFieldError("engine", f"{self.engine!r} is unknown; known: {', '.join(known)}")
        if self.ray_address is not None and self.engine != "ray":
            raise InvalidFieldError("ray_address", "is for --engine ray")
        if self.ray_address is not None and self.workers is not None:
            raise InvalidFieldError("workers", "is what the cluster at --ray-address has; leave it out")
        if self.engine == "ray" and importlib.util.find_spec("ray") is None:
            raise EngineError("--engine ray needs Ray, which is missing: pip install 'mlrs[ray]'")

    def open(self) -> JobEngine:
        """Return the engine, ready to compute.

        Raises:
            EngineError: the Ray cluster cannot be reached or started.
        """
        if self.engine == "ray":
            from mlrs_train.evolution.engines.cluster import RayCluster

            return RayCluster(workers=self.workers, address=self.ray_address)
        if self.workers in (None, 1):
            from mlrs_train.evolution.engines.in_process import InThisProcess

            return InThisProcess()
        from mlrs_train.evolution.engines.local import LocalProcesses

        return LocalProcesses(self.workers)
