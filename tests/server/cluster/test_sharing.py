"""The address that a daemon needs before it shares a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlrs_server.cluster.sharing import check_advertised
from mlrs_server.config import load_config
from mlrs_server.daemon import running_daemon
from mlrs_server.errors import AdvisorError


@pytest.mark.parametrize("address", ["10.0.0.7:50051", "[fd00::7]:1", "mlrs-0.mlrs:50051", "unix:/run/mlrs"])
def test_clients_can_be_sent_to_an_address(address: str) -> None:
    """IP addresses, names and sockets are valid addresses for clients."""
    check_advertised(address)


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:50051"])
async def test_the_wildcard_address_is_refused(listen: str, tmp_path: Path) -> None:
    """A replica that listens at the wildcard address and advertises none is refused at the start."""
    flags = {
        "listen": listen,
        "store": "postgresql://127.0.0.1:1/none",
        "data_dir": tmp_path,
        "insecure": True,
    }
    with pytest.raises(AdvisorError, match="--advertise") as caught:
        async with running_daemon(load_config(None, flags)):
            pass
    assert caught.value.field == "advertise"
