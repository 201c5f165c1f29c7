"""What an advisor of the threaded client has for meta mode beside its runs."""

from __future__ import annotations

from typing import Any

from mlrs_client import _arguments as check
from mlrs_client._connection import Connection
from mlrs_client._meta_calls import adapt, adapt_gradients
from mlrs_client._meta_types import Adaptation

UPLOAD_TIMEOUT_S = 60.0
"""How long sending gradients may take, in seconds, unless told otherwise."""


class MetaAdvisor:
    """The unary calls of meta mode."""

    _connection: Connection

    def adapt(
        self,
        id: str,  # noqa: A002 # what users call it
        step: int,
        alignment: float,
        *,
        validation_loss: float | None = None,
        timeout_s: float | None = None,
    ) -> Adaptation:
        """Make a meta update of a run that another process observes.

        That process does not send it again after a crash of the daemon: let it wait for the update before it
        observes the next step. The process that observes has `Run.adapt`.

        Args:
            id: the run's id.
            step: the step that was observed last.
            alignment: as for `Run.adapt`.
            validation_loss: as for `Run.adapt`.
            timeout_s: the deadline, in seconds. Default: the advisor's.

        Raises:
            MlrsError: as `Run.adapt`; the daemon's refusal where the run is not in meta mode.
        """
        call = adapt(id, step, alignment, validation_loss)
        limit_s = self._connection.timeout_s if timeout_s is None else check.timeout_s(timeout_s)
        return self._connection.invoke(call, limit_s)

    def adapt_gradients(
        self,
        id: str,  # noqa: A002 # what users call it
        step: int,
        validation_gradient: Any,
        direction: Any,
        *,
        data_type: str | None = None,
        validation_loss: float | None = None,
        timeout_s: float = UPLOAD_TIMEOUT_S,
    ) -> Adaptation:
        """Send both vectors of a meta update, for the daemon to compute the alignment.

        Args:
            id: the run's id.
            step: the step that was observed last.
            validation_gradient: of the validation loss at w'; a buffer, such as an array of NumPy, or a list
                of them, of float32 or float16. Leave them as they are until the call returns.
            direction: d, as many buffers of the same sizes.
            data_type: what the elements of raw bytes are: `float32`, `float16` or `bfloat16`.
            validation_loss: as for `Run.adapt`.
            timeout_s: the deadline, in seconds. Default: 60.

        Returns:
            What it did, with the `alignment` that was computed.

        Raises:
            InvalidArgumentError: a vector is none, or they are not of one size.
            MlrsError: as for `adapt`.
        """
        call = adapt_gradients(id, step, validation_gradient, direction, data_type, validation_loss)
        return self._connection.invoke(call, check.timeout_s(timeout_s))
