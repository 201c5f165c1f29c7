"""Learning rates from an mlrs daemon, for any training loop.

    import mlrs

    with mlrs.connect() as advisor:
        run = advisor.run("resnet18-cifar10", horizon=10_000, num_classes=10, optimizer="sgd")
        for step in range(10_000):
            loss = train_batch(step)            # yours
            pending = run.observe(step, loss)   # returns at once
            ...                                 # the backward pass hides the round trip
            lr = pending.lr()
        run.finish()

| module | what it has |
|---|---|
| `mlrs.aio` | the same client for asyncio |
| `mlrs.torch`, `mlrs.lightning`, `mlrs.transformers`, `mlrs.timm` | adapters for PyTorch and all on top |
| `mlrs.keras`, `mlrs.optax` | adapters for Keras, and for JAX with Optax |
| `mlrs.sklearn`, `mlrs.xgboost`, `mlrs.lightgbm` | adapters for scikit-learn and for boosting |
| `mlrs.writers` | functions for `on_advice=` that write to TensorBoard, W&B and MLflow |
| `mlrs.errors` | every error that a call can raise |
| `mlrs.types` | what the daemon reports of runs and models, and the enumerations of options |
| `mlrs.schedules` | schedules that are computed without a daemon |
| `mlrs.meta` | the formulas of meta mode, for any framework |
| `mlrs.adapters` | what adapters for other frameworks are written with |

Importing `mlrs` imports grpcio and protobuf, and nothing else.
"""

from mlrs.transport import grpc_log  # noqa: F401 # before anything that imports gRPC

# isort: split
from mlrs import errors, types
from mlrs.api.advisor import Advisor, connect
from mlrs.api.run import Pending, PendingAdaptation, Run
from mlrs.api.shared import run
from mlrs.api.suggesting import suggest
from mlrs.errors import MlrsError, UnavailableError
from mlrs.transport.access import TLS
from mlrs.values.meta_types import Meta
from mlrs.values.search_types import SearchResult
from mlrs.values.types import Advice, AdviceReason, Optimizer, Ranks, Schedule

__all__ = [
    "TLS",
    "Advice",
    "AdviceReason",
    "Advisor",
    "Meta",
    "MlrsError",
    "Optimizer",
    "Pending",
    "PendingAdaptation",
    "Ranks",
    "Run",
    "Schedule",
    "SearchResult",
    "UnavailableError",
    "connect",
    "errors",
    "run",
    "suggest",
    "types",
]
