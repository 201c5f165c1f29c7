"""Where the dashboard may listen."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlrs
from mlrs_web.security.exposure import ExposedError, check_exposure, must_sign_in
from mlrs_web.settings import Settings

CERTIFICATE = {"tls_cert": Path("cert.pem"), "tls_key": Path("key.pem")}
OPEN = "0.0.0.0:8265"
TOKEN = "mlrs_secret"  # noqa: S105  # a test's


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (Settings(listen="127.0.0.1:1", token=TOKEN), ""),
        (Settings(listen="[::1]:1"), ""),
        (Settings(listen="localhost:1"), ""),
        (Settings(listen=OPEN), "TLS"),
        (Settings(listen="gpu-7:1"), "TLS"),
        (Settings(listen=OPEN, **CERTIFICATE), ""),
        (Settings(listen=OPEN, token=TOKEN, **CERTIFICATE), "everyone who opens it would use the token"),
        (Settings(listen=OPEN, tls=mlrs.TLS(cert_file="c", key_file="k"), **CERTIFICATE), "certificate"),
        (Settings(listen=OPEN, token=TOKEN, insecure=True), ""),
    ],
)
def test_other_machines_reach_it_only_with_tls_and_sign_in(settings: Settings, complaint: str) -> None:
    """Beyond loopback it takes TLS, and no access of its own that visitors would share; or `--insecure`."""
    if complaint:
        with pytest.raises(ExposedError, match=complaint) as raised:
            check_exposure(settings)
        assert "--insecure" in str(raised.value)
        assert settings.token is None or settings.token not in str(raised.value).split()
    else:
        check_exposure(settings)


def test_beyond_loopback_browsers_sign_in() -> None:
    """Browsers of other machines sign in, whatever the daemon wants, unless the operator says otherwise."""
    assert must_sign_in(Settings(listen=OPEN))
    assert not must_sign_in(Settings(listen=OPEN, insecure=True))
    assert not must_sign_in(Settings())


def test_the_token_is_not_in_the_settings_text() -> None:
    """The settings as text, as in a log, do not show the token."""
    assert TOKEN not in repr(Settings(token=TOKEN))
