"""Checks of what users hand in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlrs import Optimizer
from mlrs.errors import InvalidArgumentError
from mlrs.types import RunConfig
from mlrs.values import arguments as check
from mlrs.values import meta_arguments as meta_check


@pytest.mark.parametrize("address", ["localhost:50051", "10.0.0.1:1", "[::1]:50051", "unix:/run/mlrs.sock"])
def test_addresses(address: str) -> None:
    """Addresses with a port, and sockets, are taken as they are."""
    assert check.target(address) == address


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("localhost", "no port"),
        ("::1", "no port"),
        (":50051", "no port"),
        ("localhost:", "1 to 65535"),
        ("localhost:http", "1 to 65535"),
        ("localhost:70000", "1 to 65535"),
        ("http://localhost:50051", "without a scheme"),
        ("unix:", "no socket"),
        ("", "1 to 4096 characters"),
        (50051, "string"),
    ],
)
def test_wrong_addresses(address: Any, what: str) -> None:
    """An address that cannot be one is refused before anything connects, and says why."""
    with pytest.raises(InvalidArgumentError, match=what) as caught:
        check.target(address)
    assert caught.value.field == "target"


@pytest.mark.parametrize(
    "value",
    [
        "1.0",
        b"1",
        True,
        None,
        [1.0],
        1j,
        10**400,
        np.zeros(2),
        np.zeros(0),
        np.array(["1.0"]),
        np.array([1j]),
        np.array([True]),
        np.array([None]),
        torch.zeros(2),
        torch.tensor([1j]),
        torch.tensor(True),
        torch.zeros((), device="meta"),
    ],
    ids=str,
)
def test_losses_that_are_none(value: Any) -> None:
    """What is not one real number is no loss."""
    with pytest.raises(InvalidArgumentError) as caught:
        check.loss(value)
    assert caught.value.field == "loss"


@given(st.floats())
def test_every_double_is_a_loss(value: float) -> None:
    """Every double is a loss, NaN and infinities included, and stays what it is."""
    found = check.loss(value)
    assert found == value or (math.isnan(found) and math.isnan(value))


class Device:
    """A number that is on a device, as arrays of JAX are: no array of NumPy, and no number of Python."""

    def item(self) -> float:
        """Return it as a number of Python."""
        return 3.0


@pytest.mark.parametrize(
    "value",
    [
        3,
        Fraction(3),
        np.float32(3),
        np.float16(3),
        np.longdouble(3),
        np.int64(3),
        np.array(3.0),
        np.array([3.0]),
        np.array([[3]]),
        torch.tensor(3.0),
        torch.tensor([[3]]),
        torch.tensor(3.0, dtype=torch.bfloat16),
        torch.tensor([3.0], requires_grad=True),
        torch.tensor(2.0, requires_grad=True) * 1.5,
        Device(),
    ],
    ids=lambda value: "device" if isinstance(value, Device) else repr(value),
)
def test_numbers_of_other_kinds_are_losses(value: Any) -> None:
    """A number of the standard library, or an array of one number, of whatever library, is a loss."""
    found = check.loss(value)
    assert (found, type(found)) == (3.0, float)


@pytest.fixture
def always_warns() -> Iterator[None]:
    """Have PyTorch warn each time of what it warns of once a process."""
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


@pytest.mark.usefixtures("always_warns")
def test_tensors_of_a_graph() -> None:
    """A loss that gradients flow from brings no warning of PyTorch's."""
    assert check.loss(torch.tensor(2.0, requires_grad=True) * 1.5) == 3.0


@pytest.mark.usefixtures("always_warns")
@pytest.mark.parametrize("value", [np.array([3.0]), torch.tensor(3.0, requires_grad=True)], ids=repr)
def test_arrays_of_one_number(value: Any) -> None:
    """Where a number is wanted, such as an alignment or a validation loss, an array of one is taken."""
    assert check.samples(value) == 3.0
    assert meta_check.alignment(value) == 3.0
    assert meta_check.validation_loss(value) == 3.0


@pytest.mark.parametrize("value", [-1, True, 1.0, "1", None, 2**53 + 1])
def test_steps_that_are_none(value: Any) -> None:
    """A step is an int of at least 0; a bool or a float is none."""
    with pytest.raises(InvalidArgumentError) as caught:
        check.step(value)
    assert caught.value.field == "step"


def test_numpy_steps() -> None:
    """NumPy's integers are steps."""
    assert check.step(np.int32(7)) == 7


@pytest.mark.parametrize("value", ["", "-a", "a b", "a" * 257, "ä", None, 3])
def test_run_ids_that_are_none(value: Any) -> None:
    """A run id keeps to the contract's characters and length."""
    with pytest.raises(InvalidArgumentError) as caught:
        check.run_id(value)
    assert caught.value.field == "id"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", ""),
        ("horizon", 0),
        ("horizon", 1.5),
        ("num_classes", 1),
        ("scale", 0.0),
        ("scale", math.inf),
        ("scale", "big"),
        ("snapshot", -1),
        ("optimizer", "lion"),
        ("optimizer", 3),
        ("momentum", 1.0),
        ("momentum", math.nan),
        ("min_lr", -0.1),
        ("max_lr", 0.0),
    ],
)
def test_configs_that_are_none(field: str, value: Any) -> None:
    """Each field of a config is checked, and the error names it."""
    with pytest.raises(InvalidArgumentError, match=field) as caught:
        check.config(**{field: value})
    assert caught.value.field == field


def test_bounds_of_the_advice() -> None:
    """The lower bound must not be above the upper one."""
    with pytest.raises(InvalidArgumentError, match="max_lr"):
        check.config(min_lr=0.2, max_lr=0.1)
    assert check.config(min_lr=0.1, max_lr=0.1).max_lr == 0.1


def test_config_values() -> None:
    """Values of a config become those of the contract's types."""
    config = check.config(horizon=np.int64(10), scale=1, optimizer="adam")
    assert config == RunConfig(horizon=10, scale=1.0, optimizer=Optimizer.ADAM)
    assert type(config.scale) is float


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "2"])
def test_deadlines_that_are_none(value: Any) -> None:
    """A deadline is a positive, finite number of seconds: nothing waits forever."""
    with pytest.raises(InvalidArgumentError, match="timeout_s"):
        check.timeout_s(value)


def test_long_values_are_cut() -> None:
    """A value of any size leaves the message readable."""
    with pytest.raises(InvalidArgumentError) as caught:
        check.loss("x" * 10_000)
    assert len(str(caught.value)) < 250
