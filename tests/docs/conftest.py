"""What code blocks of the pages connect to: a daemon, one with TLS, and a store without a daemon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import mlrs
from tests.server.auth.certificates import Authority, write_pair
from tests.support.daemon import Daemon


@dataclass(frozen=True)
class Stage:
    """The addresses and folders that stand for those of the pages."""

    address: str
    """The address of a daemon with the default models, the finished run `my-run`, and a remembered run of the
    task `sine`."""
    secure: str
    """The address of a daemon with TLS, whose certificate is for the name `mlrs`."""
    folder: Path
    """A folder that holds `etc`, with the authority's certificate `ca.crt`, `cert.pem` and `key.pem`, and
    `lib`, with a store that no daemon has open."""

    def localized(self, text: str) -> str:
        """Return a text with the addresses and folders of the pages replaced by these."""
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
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Start the daemons, and write the folders."""
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
            sine = advisor.run("sine", id="sine/first", optimizer="adam", horizon=10)
            for step in range(10):
                sine.next_lr(step, 2.3 / (1 + step))
            sine.finish(metric=0.2)
        yield Stage(daemon.address, secure.address, folder)
