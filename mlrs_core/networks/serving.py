"""From a network's shape and weights to what serves it: the compiled kernel, frozen or in meta mode.

Shapes (`spec.py`) know no kernels, so that reading a model's file compiles nothing. A new architecture, or
a new feature set of the drift network, is entered here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlrs_core.adapting import AdaptivePolicy
from mlrs_core.adapting.kernel import AdaptiveKernel
from mlrs_core.adapting.learner import Learner
from mlrs_core.config import MetaConfig
from mlrs_core.networks.architecture import Architecture, Weights
from mlrs_core.networks.drift.kernel import DriftKernel
from mlrs_core.networks.drift.learner import DriftLearner
from mlrs_core.networks.drift.spec import DriftSpec
from mlrs_core.networks.paper.kernel import PaperKernel
from mlrs_core.networks.paper.learner import PaperLearner
from mlrs_core.networks.paper.spec import PaperSpec
from mlrs_core.networks.tail.kernel import TailKernel
from mlrs_core.networks.tail.learner import TailLearner
from mlrs_core.networks.tail.spec import TailSpec
from mlrs_core.policy import Policy

DRIFT_KERNELS: dict[int, Callable[[DriftSpec, Sequence[Weights]], Policy]] = {1: DriftKernel}
"""The kernel of each version of the drift network's feature set."""

DRIFT_LEARNERS: dict[int, Callable[[DriftSpec, Sequence[Weights]], Learner]] = {1: DriftLearner}
"""The learner, the part in meta mode, of each version of the drift network's feature set."""


def policy_of(architecture: Architecture, snapshots: Sequence[Weights]) -> Policy:
    """Return the kernel over one or more snapshots of weights of the architecture's shapes."""
    match architecture:
        case PaperSpec():
            return PaperKernel(architecture, snapshots)
        case DriftSpec():
            return DRIFT_KERNELS[architecture.features](architecture, snapshots)
        case TailSpec():
            return TailKernel(architecture, snapshots)
    raise TypeError(f"no kernel serves an architecture of kind {architecture.kind!r}")


def adaptive_policy_of(
    architecture: Architecture, snapshots: Sequence[Weights], meta: MetaConfig
) -> AdaptivePolicy:
    """Return the kernel of runs in meta mode, by some meta settings, from such snapshots."""
    learner: Learner
    match architecture:
        case PaperSpec():
            learner = PaperLearner(architecture, snapshots)
        case DriftSpec():
            learner = DRIFT_LEARNERS[architecture.features](architecture, snapshots)
        case TailSpec():
            learner = TailLearner(architecture, snapshots)
        case _:
            raise TypeError(f"no kernel serves an architecture of kind {architecture.kind!r}")
    return AdaptiveKernel(learner, meta)
