"""For all tests of the adapter for Transformers."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # tests download nothing


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Let torch's threads not spin on the cores that the daemon needs."""
    import torch  # not above: the tests skip by name where it is missing

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
