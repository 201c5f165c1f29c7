"""The paper's network against traces of its equations, which come with every clone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from mlrs_core.config import RunConfig
from mlrs_core.networks import Weights
from mlrs_core.networks.paper import PaperSpec
from mlrs_core.networks.paper.reference import net_with
from mlrs_core.networks.scale import shu_gamma
from mlrs_core.networks.serving import policy_of
from tests.core.models.test_official import needs_reference, official_model
from tests.core.models.test_official import traces as authors_traces
from tests.core.networks import paper_oracle
from tests.core.networks.paper_oracle import FILE, Network, authors_name
from tests.core.runs import Runs

TRACES: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
HORIZON, CLASSES = TRACES["horizon"], TRACES["num_classes"]
CASES = {case["name"]: case for case in TRACES["cases"]}


def ours(name: str) -> str:
    """Return our name of one of the authors' weights."""
    first, *rest = name.split(".")
    if first == "layer3":
        return f"head.{rest[0]}"
    layer = 0 if first == "layer1" else int(rest.pop(0)) + 1
    return f"layers.{layer}.{'.'.join(rest).removeprefix('fc_')}"


def snapshots_of(case: dict[str, Any]) -> list[Weights]:
    """Return a case's weights."""
    if "weights" not in case:
        snapshots = paper_oracle.shipped_network().snapshots
        return [{ours(name): np.array(rows, np.float32) for name, rows in one.items()} for one in snapshots]
    return [
        {ours(name): np.array(rows, np.float32) / TRACES["weights_over"] for name, rows in one.items()}
        for one in case["weights"]
    ]


def spec_of(case: dict[str, Any], weights: Weights) -> PaperSpec:
    """Return a case's architecture."""
    layers = {name.split(".")[1] for name in weights if name.startswith("layers.")}
    size = weights["head.weight"].shape[1]
    return PaperSpec(hidden_size=size, num_layers=len(layers), gate_layout=case["gate_layout"])


def test_traces_are_what_the_oracle_makes() -> None:
    """The committed traces are the oracle's, of both gate layouts, stacked cells and the shipped model."""
    made = paper_oracle.cases()
    assert [case["name"] for case in made] == list(CASES)
    assert len(CASES) == 5
    for case, stored in zip(made, TRACES["cases"], strict=True):
        assert {name: value for name, value in case.items() if name not in ("sigma", "learning_rate")} == {
            name: value for name, value in stored.items() if name not in ("sigma", "learning_rate")
        }
        for name in ("sigma", "learning_rate"):  # other machines' exp and tanh may round otherwise
            assert len(stored[name]) == HORIZON
            np.testing.assert_allclose(stored[name], case[name], rtol=1e-12)


@pytest.mark.parametrize("scaled", [False, True], ids=["sigma", "learning rates"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_kernel_follows_the_papers_equations(case: dict[str, Any], scaled: bool) -> None:  # noqa: FBT001
    """Through all three snapshots the kernel's advice is the oracle's to 1e-6, with its scale and under 1."""
    snapshots = snapshots_of(case)
    policy = policy_of(spec_of(case, snapshots[0]), snapshots)
    config = RunConfig(horizon=HORIZON, num_classes=CLASSES, scale=None if scaled else 1.0)
    runs = Runs(policy, [config])
    rates = [float(runs.advise(step, [loss])[0]) for step, loss in enumerate(case["losses"])]
    np.testing.assert_allclose(rates, case["learning_rate" if scaled else "sigma"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_torch_module_follows_the_papers_equations(case: dict[str, Any]) -> None:
    """Through all three snapshots the torch module's output, times our gamma, is the oracle's to 1e-6."""
    snapshots = snapshots_of(case)
    nets = [net_with(spec_of(case, weights), weights) for weights in snapshots]
    state, sigmas, rates, gamma = nets[0].init_state(1), [], [], 0.0
    used = paper_oracle.thirds(len(nets))
    with torch.no_grad():
        for step, (loss, number) in enumerate(zip(case["losses"], used, strict=True)):
            if step == 0 or number != used[step - 1]:
                gamma = shu_gamma(loss, float(np.log(CLASSES)))
            sigma, state = nets[number](torch.tensor([loss], dtype=torch.float32), state)
            sigmas.append(float(sigma))
            rates.append(gamma * sigmas[-1])
    np.testing.assert_allclose(sigmas, case["sigma"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(rates, case["learning_rate"], rtol=0, atol=1e-6)


@needs_reference
@pytest.mark.parametrize("case", authors_traces())
def test_oracle_is_the_authors_program(case: Any) -> None:
    """Where the authors' weights and traces are at hand, the oracle gives their outputs to 1e-6."""
    snapshots = [
        {authors_name(name): array.astype(float).tolist() for name, array in weights.items()}
        for weights in official_model().snapshots
    ]
    used = [(1, 100, 200).index(epoch) for epoch in case["snapshot"]]
    sigmas, _ = Network("the authors'", "ifgo", snapshots).trace(case["losses"], used)
    np.testing.assert_allclose(sigmas, case["sigma"], rtol=0, atol=1e-6)
