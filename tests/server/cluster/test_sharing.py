"""What a daemon must know before it shares a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlrs_server.cluster.sharing import check_advertised
from mlrs_server.config import load_config
from mlrs_server.daemon import running_daemon
from mlrs_server.errors import AdvisorError


@pytest.mark.parametrize("address", ["10.0.0.7:50051", "[fd00::7]:1", "mlrs-0.mlrs:50051", "unix:/run/mlrs"])
def test_clients_can_be_sent_to_an_address(address: str) -> None:
    """Numbers, names and sockets are places to send a client to."""
    check_advertised(address)


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:50051"])
async def test_everywhere_is_nowhere_to_send_clients(listen: str, tmp_path: Path) -> None:
    """A replica that listens everywhere and says no address is refused before it asks the database."""
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
