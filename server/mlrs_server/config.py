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
"""Settings that are tables of the file, without flags."""
ADDRESS = re.compile(r"(?:[^:\s]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})|unix:/.+")
MAX_UNFLUSHED = 4 * 2**20
"""The default of `max_unflushed`: 160 MiB of answers that are not stored yet."""
STORE = re.compile(r"postgres(?:ql)?(?:\+psycopg)?://")


class TenantSettings(BaseModel):
    """Settings of one tenant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limits: LimitChanges = LimitChanges()
    """Limits that differ from the defaults."""


class ServerConfig(BaseSettings):
    """Settings of a daemon."""

    model_config = SettingsConfigDict(
        env_prefix="MLRS_", frozen=True, extra="ignore", validate_default=True, defer_build=True
    )

    listen: str = "127.0.0.1:50051"
    """The address to listen on: HOST:PORT, where port 0 picks a free one, or unix:/PATH."""
    data_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_state_dir("mlrs")))
    """The folder of runs and models, created if missing."""
    store: SecretStr | None = None
    """The database of runs, postgresql://USER:PASSWORD@HOST/NAME, which several daemons may share.

    If unset, runs are stored in a file of the data folder, for one daemon.
    """
    advertise: str | None = None
    """The address, HOST:PORT, to which daemons that share the store send clients of this one."""
    lease_s: Annotated[float, Field(ge=0.5, le=3600)] = 5.0
    """How long a daemon may not renew its lease before others that share the store take its runs over."""
    model: str | None = None
    """The default model of runs: a name, or a .safetensors file."""
    flush_interval_s: Annotated[float, Field(gt=0, le=60)] = 0.1
    """How long an answer waits to be stored; up to half a second more if the store is busy."""
    idle_after_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """How long an unobserved run stays in memory; it is loaded again when it is used."""
    abandoned_after_s: Annotated[float, Field(gt=0, le=1e9)] = 86_400.0
    """How long a run may not be observed before the memory of its task no longer waits for its end."""
    exit_after_idle_s: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """How long the daemon may be without a call or a stream before it ends by itself; never if unset."""
    max_unflushed: Annotated[int, Field(ge=1, le=2**30)] = MAX_UNFLUSHED
    """The most answers that wait to be stored, 40 bytes each; beyond that, observations are refused."""
    drain_timeout_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
    """How long open calls may take to end after the daemon got a signal to stop."""
    max_message_bytes: Annotated[int, Field(ge=4096, le=2**30)] = 4 * 2**20
    """The size of the largest message that is read."""
    tls_cert: Path | None = None
    """The daemon's certificate and intermediate ones, as PEM; with `tls_key` it speaks TLS."""
    tls_key: Path | None = None
    """The certificate's private key, as PEM."""
    tls_client_ca: Path | None = None
    """The authorities of clients' certificates, as PEM; clients then need one (mutual TLS)."""
    tokens_file: Path | None = None
    """The file of the tokens that calls need. If unset: tokens.json in the data folder, if that exists."""
    insecure: bool = False
    """Listen beyond this machine even without TLS or tokens."""
    reflection: Reflection = "auto"
    """Who may use server reflection: admins if calls need tokens (auto), all callers (on), nobody (off)."""
    metrics: str | None = None
    """The address, HOST:PORT, of metrics for Prometheus over plain HTTP; none if unset."""
    limits: Limits = Limits()
    """The limits of each tenant."""
    tenants: dict[str, TenantSettings] = Field(default_factory=dict)
    """Settings of single tenants, by name."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is logged."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """The format of logs: text, JSON lines, or text if standard error is a terminal (auto)."""

    @property
    def tokens_path(self) -> Path:
        """The path of the file of tokens."""
        return self.tokens_file or self.data_dir / "tokens.json"

    @property
    def tls(self) -> TlsFiles | None:
        """The paths of the certificates; `None` without TLS."""
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
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flags, environment, file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_config(file: Path | None, flags: dict[str, Any]) -> ServerConfig:
    """Return the settings.

    Args:
        file: a TOML file of settings, or `None`.
        flags: settings from the command line; `None` is not given.

    Raises:
        AdvisorError: a setting is invalid; the message names it and where to set it.
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
    except (ValueError, OSError, RecursionError) as error:  # not TOML, or nested too deeply
        raise AdvisorError(Reason.INVALID_FIELD, f"--config: {file} cannot be read: {error}") from error


def _refuse_unknown(settings: type[ServerConfig], file: Path | None) -> None:
    """Refuse unknown settings in the file: a misspelt name must not be ignored."""
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
