"""Full names and bare names."""

from __future__ import annotations

import pytest

from mlrs_server.domain.ledger import RECORD
from mlrs_server.errors import Reason
from mlrs_server.tenancy import bare, check_full_name, check_run_id, full_name, number_of, spoken, tenant_of
from tests.server.support import raises


@pytest.mark.parametrize("tenant", ["", "acme", "a-1"])
@pytest.mark.parametrize("run_id", ["a", "sweep/1:x=y@z+w", "a" * 256])
def test_full_names_are_split_again(tenant: str, run_id: str) -> None:
    """A full name has a tenant and a bare name; those of the default tenant are the ids themselves."""
    full = full_name(tenant, run_id)
    assert (tenant_of(full), bare(full)) == (tenant, run_id)
    assert (full == run_id) == (tenant == "")
    check_full_name(full)
    check_run_id(bare(full))


@pytest.mark.parametrize("name", ["acme!", "!a", "A!a", "a!b!c", "acme!!a", "acme! a", "x" * 33 + "!a"])
def test_malformed_names_are_refused(name: str) -> None:
    """Malformed tenants and ids are refused, and no full name is an id."""
    with raises(Reason.INVALID_FIELD, field="run_id"):
        check_full_name(name)
    with raises(Reason.INVALID_FIELD, field="run_id"):
        check_run_id(name)


def test_messages_have_bare_names() -> None:
    """Full names in messages become bare; messages of the default tenant are unchanged."""
    assert spoken("run 'acme!a' and 'acme!b'", "acme") == "run 'a' and 'b'"
    assert spoken("it is there!", "") == "it is there!"


def test_numbers_of_tenants_stay() -> None:
    """Each tenant has a number of its own, the default one 0, and it fits into the padding of records."""
    numbers = {tenant: number_of(tenant) for tenant in ("", "x-1", "x-2")}
    assert numbers[""] == 0
    assert len(set(numbers.values())) == 3
    assert numbers == {tenant: number_of(tenant) for tenant in numbers}
    assert RECORD.itemsize == 72
