"""What importing the core brings with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVING = [
    "mlrs_core",
    "mlrs_core.adapting.kernel",
    "mlrs_core.advise",
    "mlrs_core.networks",
    "mlrs_core.networks.drift.learner",
    "mlrs_core.networks.paper.kernel",
    "mlrs_core.networks.paper.learner",
    "mlrs_core.models.checkpoint",
    "mlrs_core.config",
    "mlrs_core.models.model",
    "mlrs_core.policy",
]
"""The modules that advice is computed with."""


@pytest.mark.parametrize("isolated", [False, True], ids=["all", "root"])
def test_serving_path_is_light(isolated: bool) -> None:  # noqa: FBT001
    """A fresh process that has imported what serves advice has no torch, no gRPC and no protobuf."""
    script = (
        "import sys, importlib\n"
        f"for name in {SERVING[:1] if isolated else SERVING}: importlib.import_module(name)\n"
        "heavy = {'torch', 'grpc', 'google.protobuf', 'sqlalchemy', 'mlrs_proto', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
