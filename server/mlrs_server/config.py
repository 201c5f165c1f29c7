"""The daemon's settings: flags over `MLRS_*` variables over a TOML file over defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.journal import MAX_UNDURABLE

ADDRESS = re.compile(r"(?:[^:\s]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})|unix:/.+")


class ServerConfig(BaseSettings):
    """Settings of a daemon."""

    model_config = SettingsConfigDict(
        env_prefix="MLRS_", frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    listen: str = "127.0.0.1:50051"
    """Where to listen: HOST:PORT, where port 0 picks a free one, or unix:/PATH."""
    data_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_state_dir("mlrs")))
    """The folder of runs and models, made if missing."""
    model: str | None = None
    """The model of runs that name none: a name, or a .safetensors file."""
    flush_interval_s: Annotated[float, Field(gt=0, le=60)] = 0.1
    """How long an answer waits to be stored; where the store is busy, up to half a second more."""
    idle_after_s: Annotated[float, Field(gt=0, le=1e9)] = 3600.0
    """How long a run stays in memory unobserved; it comes back when it is asked for."""
    max_undurable: Annotated[int, Field(ge=1, le=2**30)] = MAX_UNDURABLE
    """The most answers that wait to be stored, 40 bytes each; beyond it observations are refused."""
    drain_timeout_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
    """How long open calls may take to end once the daemon is told to stop."""
    max_message_bytes: Annotated[int, Field(ge=4096, le=2**30)] = 4 * 2**20
    """The largest message that is read."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """How: for people, as JSON lines, or by whether standard error is a terminal."""

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        match = ADDRESS.fullmatch(value)
        if not match or int(match["port"] or 0) > 65_535:
            raise ValueError(f"must be HOST:PORT, such as 127.0.0.1:50051, or unix:/PATH, is {value!r}")
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
        lines.append(
            f"{name}: {message} (--{name.replace('_', '-')}, MLRS_{name.upper()}, or {name} in the file)"
        )
    return "; ".join(lines)
