"""From a network's shape and weights to what serves it: the compiled kernel, frozen or in meta mode.

Shapes (`spec.py`) know no kernels, so that reading a model's file compiles nothing. A new architecture, or
a new feature set of the drift network, is entered here. Its modules are imported with the first model of it:
most daemons serve one architecture. That includes those of meta mode, so that opening a run reads no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlrs_core.adapting import AdaptivePolicy
from mlrs_core.adapting.learner import Learner
from mlrs_core.config import MetaConfig
from mlrs_core.networks.architecture import Architecture, Weights
from mlrs_core.networks.drift.spec import DriftSpec
from mlrs_core.networks.paper.spec import PaperSpec
from mlrs_core.networks.tail.spec import TailSpec
from mlrs_core.policy import Policy


def _drift_kernel(spec: DriftSpec, snapshots: Sequence[Weights]) -> Policy:
    import mlrs_core.networks.drift.learner  # noqa: F401  # see above
    from mlrs_core.networks.drift.kernel import DriftKernel

    return DriftKernel(spec, snapshots)


def _drift_learner(spec: DriftSpec, snapshots: Sequence[Weights]) -> Learner:
    from mlrs_core.networks.drift.learner import DriftLearner

    return DriftLearner(spec, snapshots)


DRIFT_KERNELS: dict[int, Callable[[DriftSpec, Sequence[Weights]], Policy]] = {1: _drift_kernel}
"""What makes the kernel of each version of the drift network's feature set."""

DRIFT_LEARNERS: dict[int, Callable[[DriftSpec, Sequence[Weights]], Learner]] = {1: _drift_learner}
"""What makes the learner, the part in meta mode, of each version of the drift network's feature set."""


def policy_of(architecture: Architecture, snapshots: Sequence[Weights]) -> Policy:
    """Return the kernel over one or more snapshots of weights of the architecture's shapes."""
    match architecture:
        case PaperSpec():
            import mlrs_core.networks.paper.learner  # see above
            from mlrs_core.networks.paper.kernel import PaperKernel

            return PaperKernel(architecture, snapshots)
        case DriftSpec():
            return DRIFT_KERNELS[architecture.features](architecture, snapshots)
        case TailSpec():
            import mlrs_core.networks.tail.learner  # noqa: F401  # see above
            from mlrs_core.networks.tail.kernel import TailKernel

            return TailKernel(architecture, snapshots)
    raise TypeError(f"no kernel serves an architecture of kind {architecture.kind!r}")


def adaptive_policy_of(
    architecture: Architecture, snapshots: Sequence[Weights], meta: MetaConfig
) -> AdaptivePolicy:
    """Return the kernel of runs in meta mode, by some meta settings, from such snapshots."""
    from mlrs_core.adapting.kernel import AdaptiveKernel

    return AdaptiveKernel(_learner_of(architecture, snapshots), meta)


def _learner_of(architecture: Architecture, snapshots: Sequence[Weights]) -> Learner:
    match architecture:
        case PaperSpec():
            from mlrs_core.networks.paper.learner import PaperLearner

            return PaperLearner(architecture, snapshots)
        case DriftSpec():
            return DRIFT_LEARNERS[architecture.features](architecture, snapshots)
        case TailSpec():
            from mlrs_core.networks.tail.learner import TailLearner

            return TailLearner(architecture, snapshots)
    raise TypeError(f"no kernel serves an architecture of kind {architecture.kind!r}")
