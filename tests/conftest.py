"""Settings of all tests: the same examples in every run, no clock, and one thread.

Torch's threads wait for each other by spinning: where other work shares the cores, a product of
three rows then takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
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


@pytest.fixture(scope="session", autouse=True)
def _no_files_at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have trainings that end without their daemon leave what it lacks in a folder of the tests'."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLRS_UNSENT_DIR", str(tmp_path_factory.mktemp("unsent")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_daemon_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither start nor find the daemon of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLRS_AUTOSTART", "0")
        patched.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patched.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        patched.delenv("MLRS_TARGET", raising=False)
        yield
