"""Full names of runs and models inside the daemon: the tenant, `!`, and the name that the user gave.

No id contains `!`, so names of two tenants are never equal. Names of the default tenant, "", have no prefix.
`rpc/convert` and `rpc/status.py` turn names of messages into full names and back; all other code uses full
names.
"""

from __future__ import annotations

import re

from mlrs_server.errors import SHOWN, invalid_field

SEPARATOR = "!"
"""The separator between the tenant and the name."""
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/:+=@]{0,255}")
"""The format of a run's id."""
FEEDER = re.compile(r"[A-Za-z0-9-]{1,64}")
"""The format of the id of a process that sends observations."""
TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
"""The format of a tenant's name."""

_numbers: dict[str, int] = {"": 0}


def full_name(tenant: str, name: str) -> str:
    """Return the full name for a tenant's name of a run or model."""
    return f"{tenant}{SEPARATOR}{name}" if tenant else name


def tenant_of(full: str) -> str:
    """Return the tenant of a full name; "" is the default tenant."""
    return full.rpartition(SEPARATOR)[0]


def bare(full: str) -> str:
    """Return a full name without its tenant."""
    return full.rpartition(SEPARATOR)[2]


def spoken(message: str, tenant: str) -> str:
    """Return an error message with its tenant's full names replaced by bare ones."""
    return message.replace(tenant + SEPARATOR, "") if tenant else message


def number_of(tenant: str) -> int:
    """Return the number of a tenant in this process, for compiled code; the default tenant's is 0."""
    return _numbers.setdefault(tenant, len(_numbers))


def check_run_id(run_id: str, field: str = "run_id") -> str:
    """Check a run's id as given by a user, and return it.

    Raises:
        AdvisorError: it is malformed.
    """
    if not RUN_ID.fullmatch(run_id):
        raise invalid_field(
            field,
            "must be 1 to 256 characters: letters, digits and any of ._-/:+=@, beginning with a letter "
            f"or digit; is {run_id[:SHOWN]!r}",
        )
    return run_id


def check_feeder(feeder: str, field: str = "feeder") -> str:
    """Check the id of a process that sends observations, and return it; "" is none.

    Raises:
        AdvisorError: it is malformed.
    """
    if feeder and not FEEDER.fullmatch(feeder):
        raise invalid_field(field, f"must be up to 64 letters, digits and -, is {feeder[:SHOWN]!r}")
    return feeder


def check_full_name(name: str, field: str = "run_id") -> None:
    """Check the full name of a run, or of a group.

    Raises:
        AdvisorError: it is malformed.
    """
    tenant, separator, run_id = name.rpartition(SEPARATOR)
    check_run_id(run_id if separator and TENANT.fullmatch(tenant) else name, field)


def check_tenant(tenant: str, field: str = "tenant") -> str:
    """Check a tenant's name, and return it; "" is the default tenant.

    Raises:
        AdvisorError: it is malformed.
    """
    if tenant and not TENANT.fullmatch(tenant):
        raise invalid_field(
            field,
            f"must be 1 to 32 of a-z, 0-9 and -, beginning with a letter or digit, is {tenant[:SHOWN]!r}",
        )
    return tenant
