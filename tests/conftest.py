"""Settings of all tests: the same examples in every run, no clock, and one thread.

Torch's threads wait for each other by spinning: where other work shares the cores, a product of
three rows then takes milliseconds.
"""

from __future__ import annotations

import hypothesis
import torch

hypothesis.settings.register_profile(
    "mlrs",
    deadline=None,
    derandomize=True,
    database=None,
    # Fixtures hand out folders, and examples make new names in them.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("mlrs")
torch.set_num_threads(1)
