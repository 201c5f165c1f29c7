"""The daemon's settings: flags over `MLRS_*` variables over a TOML file over defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from mlrs_server.auth.authenticator import Reflection
from mlrs_server.auth.limits import LimitChanges, Limits
from mlrs_server.auth.tls import TlsFiles
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.tenancy import check_tenant

IN_FILE_ONLY = frozenset({"limits", "tenants"})
"""Settings that are tables of the file, and no flags."""
ADDRESS = re.compile(r"(?:[^:\s]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})|unix:/.+")
MAX_UNFLUSHED = 4 * 2**20
"""Answers that may wait to be stored, unless told otherwise: 160 MiB."""
STORE = re.compile(r"postgres(?:ql)?(?:\+psycopg)?://")


class TenantSettings(BaseModel):
    """Settings of one tenant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limits: LimitChanges = LimitChanges()
    """Limits that are not as all others'."""


class ServerConfig(BaseSettings):
    """Settings of a daemon."""

    model_config = SettingsConfigDict(
        env_prefix="MLRS_", frozen=True, extra="ignore", use_attribute_docstrings=True, validate_default=True
    )

    listen: str = "127.0.0.1:50051"
    """Where to listen: HOST:PORT, where port 0 picks a free one, or unix:/PATH."""
    data_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_state_dir("mlrs")))
    """The folder of runs and models, made if missing."""
    store: SecretStr | None = None
    """The database of runs, postgresql://USER:PASSWORD@HOST/NAME, which several daemons may share.

    Without one, runs are in a file of the data folder, for one daemon.
    """
    advertise: str | None = None
    """Where clients reach this daemon, HOST:PORT, of those that share a store: where others send them."""
    lease_s: Annotated[float, Field(ge=0.5, le=3600)] = 5.0
    """How long a daemon that others share a store with may be silent before they take its runs over."""
    model: str | None = None
    """The model of runs that name none: a name, or a .safetensors file."""
    flush_interval_s: Annotated[float, Field(gt=0, le=60)] = 0.1
    """How long an answer waits to be stored; where the store is busy, up to half a second more."""
    idle_after_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """How long a run stays in memory unobserved; it comes back when it is asked for."""
    max_unflushed: Annotated[int, Field(ge=1, le=2**30)] = MAX_UNFLUSHED
    """The most answers that wait to be stored, 40 bytes each; beyond it observations are refused."""
    drain_timeout_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
    """How long open calls may take to end once the daemon is told to stop."""
    max_message_bytes: Annotated[int, Field(ge=4096, le=2**30)] = 4 * 2**20
    """The largest message that is read."""
    tls_cert: Path | None = None
    """The daemon's certificate and those up to its authority's, as PEM; with `tls_key` it speaks TLS."""
    tls_key: Path | None = None
    """The certificate's private key, as PEM."""
    tls_client_ca: Path | None = None
    """The authorities of clients' certificates, as PEM; clients then need one (mutual TLS)."""
    tokens_file: Path | None = None
    """The tokens that calls need. Unset: tokens.json in the data folder, if it has any."""
    insecure: bool = False
    """Listen beyond this machine though TLS or tokens are missing."""
    reflection: Reflection = "auto"
    """Who is told what the service offers: with tokens admins (auto), all callers (on), nobody (off)."""
    metrics: str | None = None
    """Where Prometheus finds metrics, HOST:PORT, over plain HTTP; nowhere if unset."""
    limits: Limits = Limits()
    """What each tenant may have at once."""
    tenants: dict[str, TenantSettings] = Field(default_factory=dict)
    """Settings of single tenants, by name."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """How: for people, as JSON lines, or by whether standard error is a terminal."""

    @property
    def tokens_path(self) -> Path:
        """Where the tokens are."""
        return self.tokens_file or self.data_dir / "tokens.json"

    @property
    def tls(self) -> TlsFiles | None:
        """Where the certificates are; `None` without TLS."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return TlsFiles(self.tls_cert, self.tls_key, self.tls_client_ca)

    def limits_of(self, tenant: str) -> Limits:
        """Return the limits of a tenant."""
        changes = self.tenants.get(tenant, TenantSettings()).limits
        return self.limits.model_copy(update=changes.model_dump(exclude_none=True))

    @field_validator("tls_key", "tls_client_ca")
    @classmethod
    def _check_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        cert = info.data.get("tls_cert")
        if info.field_name == "tls_key" and (cert is None) != (value is None):
            raise ValueError("tls_cert and tls_key go together; give both, or neither")
        if info.field_name == "tls_client_ca" and value is not None and cert is None:
            raise ValueError("needs tls_cert and tls_key")
        return value

    @field_validator("tenants")
    @classmethod
    def _check_tenants(cls, value: dict[str, TenantSettings]) -> dict[str, TenantSettings]:
        for tenant in value:
            try:
                check_tenant(tenant)
            except AdvisorError as error:
                raise ValueError(str(error)) from error
        return value

    @field_validator("listen", "metrics", "advertise")
    @classmethod
    def _check_listen(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        match = ADDRESS.fullmatch(value)
        if info.field_name == "metrics" and value.startswith("unix:"):
            raise ValueError(f"must be HOST:PORT, such as 127.0.0.1:9464, is {value!r}")
        if not match or int(match["port"] or 0) > 65_535:
            raise ValueError(f"must be HOST:PORT, such as 127.0.0.1:50051, or unix:/PATH, is {value!r}")
        return value

    @field_validator("store")
    @classmethod
    def _check_store(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not STORE.match(value.get_secret_value()):
            raise ValueError("must be postgresql://USER:PASSWORD@HOST/NAME")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flags, environment, file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_config(file: Path | None, flags: dict[str, Any]) -> ServerConfig:
    """Return the settings.

    Args:
        file: a TOML file of settings, or `None`.
        flags: what the command line gave; `None` values count as not given.

    Raises:
        AdvisorError: a setting is wrong; the message names it and where to set it.
    """
    if file is not None and not file.is_file():
        raise AdvisorError(Reason.INVALID_FIELD, f"--config: there is no file {file}")

    class FromFile(ServerConfig):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        _refuse_unknown(FromFile, file)
        return FromFile(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise AdvisorError(Reason.INVALID_FIELD, _explain(error)) from error
    except (ValueError, OSError, RecursionError) as error:  # not TOML, or of no end of brackets
        raise AdvisorError(Reason.INVALID_FIELD, f"--config: {file} cannot be read: {error}") from error


def _refuse_unknown(settings: type[ServerConfig], file: Path | None) -> None:
    """Refuse settings in the file that there are none of: a typing error must not pass in silence."""
    unknown = sorted(TomlConfigSettingsSource(settings)().keys() - ServerConfig.model_fields.keys())
    if unknown:
        known = ", ".join(ServerConfig.model_fields)
        raise AdvisorError(
            Reason.INVALID_FIELD, f"--config: {file}: unknown setting {unknown[0]!r}; there are: {known}"
        )


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["loc"][0] in IN_FILE_ONLY:
            lines.append(f"{name}: {message} (in the file)")
            continue
        lines.append(
            f"{name}: {message} (--{name.replace('_', '-')}, MLRS_{name.upper()}, or {name} in the file)"
        )
    return "; ".join(lines)
