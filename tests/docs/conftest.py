"""What blocks of code talk to: a daemon with some runs, a second one with TLS, and the store of a third."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import mlrs
from tests.server.auth.certificates import Authority, write_pair
from tests.support.daemon import Daemon


@dataclass(frozen=True)
class Places:
    """Where the machines and folders of the pages are here."""

    address: str
    """A daemon's, with the finished run `my-run` and the default models."""
    secure: str
    """That of one with TLS, whose certificate is of the name `mlrs`."""
    folder: Path
    """Holds `etc`, with the authority's certificate `ca.crt`, `cert.pem` and `key.pem`, and `lib`, with a
    store that no daemon has open."""

    def here(self, text: str) -> str:
        """Return a text in which they have taken the place of the pages'."""
        for theirs, ours in {
            "localhost:50051": self.address,
            "127.0.0.1:50051": self.address,
            "127.0.0.1:50052": self.address,
            "mlrs:50051": self.secure,
            "/etc/mlrs": str(self.folder / "etc"),
            "/var/lib/mlrs": str(self.folder / "lib"),
            "/opt/mlrs": str(self.folder / "opt"),
            '"nccl"': '"gloo"',
        }.items():
            text = text.replace(theirs, ours)
        return text


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """The daemons and folders."""
    folder = tmp_path_factory.mktemp("docs")
    authority = Authority()
    cert, key = write_pair(authority.server("mlrs"), folder / "etc")
    authority.write(folder / "etc" / "ca.crt")
    with Daemon(folder / "lib") as stored, mlrs.connect(stored.address, timeout_s=30.0) as advisor:
        advisor.run("stored", id="stored").next_lr(0, 2.3)
    tls = ("--tls-cert", str(cert), "--tls-key", str(key))
    with Daemon(folder / "data") as daemon, Daemon(folder / "secure", *tls) as secure:
        with mlrs.connect(daemon.address, timeout_s=30.0) as advisor:
            run = advisor.run("my-run", id="my-run", optimizer="sgd", horizon=10)
            for step in range(10):
                run.next_lr(step, 2.3 / (1 + step))
            run.finish()
        yield Places(daemon.address, secure.address, folder)
