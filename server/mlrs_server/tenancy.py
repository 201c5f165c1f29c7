"""Names of runs and models inside the daemon: the tenant's, then `!`, then what the user calls them.

`!` is in no id, so no two tenants' names meet, and names of the default tenant, "", are what they were before
there were tenants. Names are made full at the door, and bare again on their way out (`convert.py`,
`status.py`); between the two everything works with full ones.
"""

from __future__ import annotations

import re

from mlrs_server.errors import SHOWN, invalid_field

SEPARATOR = "!"
"""Between a tenant and what is its own."""
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/:+=@]{0,255}")
"""What a run's id looks like."""
FEEDER = re.compile(r"[A-Za-z0-9-]{1,64}")
"""What the id of a process looks like that sends observations."""
TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
"""What a tenant's name looks like."""

_numbers: dict[str, int] = {"": 0}


def full_name(tenant: str, name: str) -> str:
    """Return the name that something of a tenant has inside the daemon."""
    return f"{tenant}{SEPARATOR}{name}" if tenant else name


def tenant_of(full: str) -> str:
    """Return whose a full name is; "" is the default tenant."""
    return full.rpartition(SEPARATOR)[0]


def bare(full: str) -> str:
    """Return a full name as its tenant knows it."""
    return full.rpartition(SEPARATOR)[2]


def spoken(message: str, tenant: str) -> str:
    """Return a message about full names in the words of the tenant that they belong to."""
    return message.replace(tenant + SEPARATOR, "") if tenant else message


def number_of(tenant: str) -> int:
    """Return the number of a tenant in this process, which compiled code compares; the default's is 0."""
    return _numbers.setdefault(tenant, len(_numbers))


def check_run_id(run_id: str, field: str = "run_id") -> str:
    """Return a run's id as a user writes it, checked.

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
    """Return the id of a process that sends observations, checked; "" is none.

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
    """Return a tenant's name, checked; "" is the default tenant.

    Raises:
        AdvisorError: it is malformed.
    """
    if tenant and not TENANT.fullmatch(tenant):
        raise invalid_field(
            field,
            f"must be 1 to 32 of a-z, 0-9 and -, beginning with a letter or digit, is {tenant[:SHOWN]!r}",
        )
    return tenant
