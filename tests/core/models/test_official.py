"""Import of the authors' weights: their names, both of torch's formats, and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlrs_core.advise import step as step_of
from mlrs_core.config import RunConfig
from mlrs_core.errors import ModelFileError
from mlrs_core.models.checkpoint import dump_model, parse_model
from mlrs_core.models.model import Model
from mlrs_core.models.official import import_official
from mlrs_core.networks.paper import GateLayout, PaperSpec
from mlrs_core.networks.paper.reference import net_with
from mlrs_core.policy import RunColumns
from tests.core.runs import Runs

REFERENCE = Path(__file__).parents[4] / "shared" / "reference"
"""The authors' files and traces, where this checkout has them beside it."""

needs_reference = pytest.mark.skipif(
    not (REFERENCE / "official_traces.json").exists(),
    reason="the authors' weights and traces are not distributed with this project",
)

StateDict = dict[str, Any]


def authors_names(hidden: int, layers: int = 1, seed: int = 0) -> StateDict:
    """Return random weights under the names of the authors' code."""
    generator = torch.Generator().manual_seed(seed)
    half = hidden // 2
    weights: StateDict = OrderedDict()

    def linear(name: str, inputs: int, outputs: int) -> None:
        weights[f"{name}.weight"] = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
        weights[f"{name}.bias"] = torch.randn(outputs, generator=generator) / inputs**0.5

    for layer in range(layers):
        cell = "layer1" if layer == 0 else f"layer2.{layer - 1}"
        for path, inputs in (("fc_i2h", 1 if layer == 0 else hidden), ("fc_h2h", hidden)):
            linear(f"{cell}.{path}.0", inputs, half)
            linear(f"{cell}.{path}.2", half, 4 * hidden)
    linear("layer3", hidden, 1)
    return weights


def write(path: Path, content: object, *, legacy: bool = False) -> Path:
    """Save something as torch does."""
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def authors_step(
    weights: StateDict,
    layout: GateLayout,
    losses: torch.Tensor,
    state: list[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Advance by one step, written from the authors' two programs: sigma (n,), and the new state."""

    def perceptron(name: str, x: torch.Tensor) -> torch.Tensor:
        half = torch.relu(x @ weights[f"{name}.0.weight"].T + weights[f"{name}.0.bias"])
        return half @ weights[f"{name}.2.weight"].T + weights[f"{name}.2.bias"]

    x, moved = losses.unsqueeze(1), []
    for layer, (hidden, memory) in enumerate(state):
        cell = "layer1" if layer == 0 else f"layer2.{layer - 1}"
        gates = perceptron(f"{cell}.fc_i2h", x) + perceptron(f"{cell}.fc_h2h", hidden)
        first, second, third, fourth = gates.chunk(4, dim=1)
        if layout == "ifgo":
            keep, new, out = second.sigmoid(), third.tanh(), fourth.sigmoid()
        else:
            keep, new, out = (second - 1).sigmoid(), fourth.tanh(), third.sigmoid()
        memory = keep * memory + first.sigmoid() * new  # noqa: PLW2901
        x = out * memory.tanh()
        moved.append((x, memory))
    return torch.sigmoid(x @ weights["layer3.weight"].T + weights["layer3.bias"]).squeeze(1), moved


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_names_are_translated(tmp_path: Path, layers: int, legacy: bool) -> None:  # noqa: FBT001
    """Weights under the authors' names become ours, bit for bit, in either of torch's formats."""
    weights = authors_names(6, layers)
    path = write(tmp_path / "a.pth", weights, legacy=legacy)
    model = import_official([path], gate_layout="ifgo")
    assert model.architecture == PaperSpec(hidden_size=6, num_layers=layers, gate_layout="ifgo")
    (snapshot,) = model.snapshots
    assert snapshot["layers.0.i2h.0.weight"].tobytes() == weights["layer1.fc_i2h.0.weight"].numpy().tobytes()
    assert snapshot["head.bias"].tobytes() == weights["layer3.bias"].numpy().tobytes()
    for layer in range(1, layers):
        ours, theirs = f"layers.{layer}.h2h.2.bias", f"layer2.{layer - 1}.fc_h2h.2.bias"
        assert snapshot[ours].tobytes() == weights[theirs].numpy().tobytes()


@pytest.mark.parametrize("layout", ["ifgo", "ifog"])
@pytest.mark.parametrize("layers", [1, 3])
def test_imported_model_computes_what_the_authors_do(tmp_path: Path, layers: int, layout: GateLayout) -> None:
    """Over 200 steps an imported model's advice is that of the authors' formulas, to 1e-6."""
    weights, n = authors_names(10, layers, seed=layers), 4
    model = import_official([write(tmp_path / "a.pth", weights)], gate_layout=layout)
    policy, runs = model.policy(), RunColumns.of([RunConfig(scale=1.0)] * n)
    states = policy.init_state(n)
    oracle = [(torch.zeros(n, 10), torch.zeros(n, 10)) for _ in range(layers)]
    for step, losses in enumerate(np.random.default_rng(0).exponential(2.0, (200, n))):
        lrs, states = step_of(policy, states, np.full(n, step), losses, runs)
        sigma, oracle = authors_step(weights, layout, torch.from_numpy(losses).float(), oracle)
        np.testing.assert_allclose(lrs, sigma.numpy(), rtol=0, atol=1e-6)


def test_files_become_snapshots_in_order(tmp_path: Path) -> None:
    """Each file is a snapshot, in the order given, and the provenance names it with its digest."""
    paths = [write(tmp_path / f"{name}.pth", authors_names(4, seed=ord(name))) for name in "cab"]
    model = parse_model(dump_model(import_official(paths, gate_layout="ifog")))
    for path, snapshot in zip(paths, model.snapshots, strict=True):
        expected = torch.load(path, weights_only=True)["layer3.weight"].numpy()
        assert snapshot["head.weight"].tobytes() == expected.tobytes()
    assert model.provenance["files"] == [
        {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in paths
    ]


def test_parameters_and_other_precisions_are_taken(tmp_path: Path) -> None:
    """Trainable parameters, doubles, halves and bfloat16 become float32 arrays."""
    weights = authors_names(4)
    weights["layer3.weight"] = torch.nn.Parameter(weights["layer3.weight"])
    weights["layer3.bias"] = weights["layer3.bias"].bfloat16()
    weights["layer1.fc_i2h.0.bias"] = weights["layer1.fc_i2h.0.bias"].double()
    model = import_official([write(tmp_path / "a.pth", weights)], gate_layout="ifgo")
    assert {array.dtype for array in model.snapshots[0].values()} == {np.dtype(np.float32)}


def without(name: str) -> Callable[[StateDict], object]:
    """Return a change that removes a weight."""
    return lambda weights: weights.pop(name)


def instead(name: str, value: object) -> Callable[[StateDict], object]:
    """Return a change that sets a weight."""
    return lambda weights: weights.update({name: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (instead("layer4.weight", torch.ones(1)), "'layer4.weight' is not one of the authors'"),
        (instead("layer2.x.fc_i2h.0.bias", torch.ones(1)), "is not one of the authors'"),
        (instead("layer2.5.fc_i2h.0.bias", torch.ones(2)), r"snapshots\.0: weights missing"),
        (instead(f"layer2.{'9' * 5000}.fc_i2h.0.bias", torch.ones(2)), "a.pth: "),
        (instead(7, torch.ones(1)), "'7' is not one"),  # type: ignore[arg-type]
        (instead("layer3.bias", 0.5), "must hold a state dict of tensors"),
        (
            instead("layer3.bias", torch.ones(1, dtype=torch.int64)),
            "'layer3.bias' must be dense and of floats",
        ),
        (instead("layer3.bias", torch.ones(1).to_sparse()), "'layer3.bias' must be dense and of floats"),
        (instead("layer3.bias", torch.full((1,), torch.nan)), r"head\.bias: holds values"),
        (instead("layer3.weight", torch.ones(4)), "no layer3.weight of two dimensions"),
        (instead("layer3.weight", torch.ones(1, 1)), "hidden_size"),
        (instead("layer3.weight", torch.ones(1, 6)), r"must be float32 of shape"),
        (without("layer3.weight"), "no layer3.weight"),
        (without("layer1.fc_h2h.2.bias"), r"weights missing: \['layers\.0\.h2h\.2\.bias'\]"),
    ],
)
def test_wrong_weights_are_named(tmp_path: Path, change: Callable[[StateDict], object], said: str) -> None:
    """A weight missing, unknown, of the wrong shape or type is refused by name."""
    weights = authors_names(4)
    change(weights)
    with pytest.raises(ModelFileError, match=said):
        import_official([write(tmp_path / "a.pth", weights)], gate_layout="ifgo")


@pytest.mark.parametrize("content", [[], {}, "text", None, torch.ones(3), {"layer3": {"weight": 1}}])
def test_files_of_something_else_are_named(tmp_path: Path, content: object) -> None:
    """A torch file that holds no such state dict is refused, and named."""
    with pytest.raises(ModelFileError, match=r"a\.pth: "):
        import_official([write(tmp_path / "a.pth", content)], gate_layout="ifgo")


def test_files_of_different_shapes_are_refused(tmp_path: Path) -> None:
    """The snapshots of one model have one shape; the file that differs is named."""
    paths = [write(tmp_path / f"{size}.pth", authors_names(size)) for size in (4, 6)]
    with pytest.raises(ModelFileError, match=r"6\.pth: .*hidden_size=6.* differs"):
        import_official(paths, gate_layout="ifgo")


def test_no_files_are_refused() -> None:
    """A model of no files is refused."""
    with pytest.raises(ModelFileError, match="at least one"):
        import_official([], gate_layout="ifgo")


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    """A file that is not there is the operating system's error."""
    with pytest.raises(FileNotFoundError):
        import_official([tmp_path / "nowhere.pth"], gate_layout="ifgo")


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_in_a_file_does_not_run(tmp_path: Path, legacy: bool) -> None:  # noqa: FBT001
    """A pickle that would run code is refused, and its code does not run."""
    trace = tmp_path / "trace"
    path = write(tmp_path / "evil.pth", {"layer3.weight": Malicious(trace)}, legacy=legacy)
    with pytest.raises(ModelFileError, match=r"evil\.pth: not a torch file of plain tensors"):
        import_official([path], gate_layout="ifgo")
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the file was harmless, so the test showed nothing"


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_random_damage_raises_nothing_else(tmp_path: Path, legacy: bool) -> None:  # noqa: FBT001
    """A damaged file is a model or a ModelFileError, whatever torch's unpickler trips over."""
    path = write(tmp_path / "a.pth", authors_names(4), legacy=legacy)
    data, rng = path.read_bytes(), random.Random(0)  # noqa: S311 -- damage is not a secret
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(damaged))
            if rng.random() < 0.7:
                damaged[at] = rng.randrange(256)
            else:
                del damaged[at : at + rng.randrange(1, 5)]
        path.write_bytes(damaged)
        with contextlib.suppress(ModelFileError):
            import_official([path], gate_layout="ifgo")


# ------------------------------------------------------------------------- the authors' own weights


def official_model() -> Model:
    """Return the authors' three published snapshots as a model, through its file."""
    folder = REFERENCE / "mlr-snet-official"
    paths = [folder / f"mlr_snet {epoch}.pth" for epoch in (1, 100, 200)]
    return parse_model(dump_model(import_official(paths, gate_layout="ifgo")))


def traces() -> list[Any]:
    """Return the cases of the authors' traces; none where they are absent."""
    path = REFERENCE / "official_traces.json"
    return list(json.loads(path.read_text())["cases"]) if path.exists() else [None]


@needs_reference
@pytest.mark.parametrize("case", traces())
def test_official_traces_through_the_kernel(case: Any) -> None:
    """With scale 1.0 the kernel's advice is the authors' own output, to 1e-6."""
    used = case["snapshot"]
    config = (
        RunConfig(scale=1.0, horizon=len(used), num_classes=case["num_classes"])
        if len(set(used)) == 3
        else RunConfig(scale=1.0, snapshot=(1, 100, 200).index(used[0]))
    )
    runs = Runs(official_model().policy(), [config])
    lrs = [float(runs.advise(step, [loss])[0]) for step, loss in enumerate(case["losses"])]
    np.testing.assert_allclose(lrs, case["sigma"], rtol=0, atol=1e-6)


@needs_reference
@pytest.mark.parametrize("case", traces())
def test_official_traces_through_the_oracle(case: Any) -> None:
    """The torch module, its weights switched as the trace says, gives the authors' output to 1e-6."""
    model = official_model()
    assert isinstance(model.architecture, PaperSpec)
    nets = {
        epoch: net_with(model.architecture, weights)
        for epoch, weights in zip((1, 100, 200), model.snapshots, strict=True)
    }
    state = nets[1].init_state(1)
    sigmas = []
    with torch.no_grad():
        for loss, epoch in zip(case["losses"], case["snapshot"], strict=True):
            sigma, state = nets[epoch](torch.tensor([loss], dtype=torch.float32), state)
            sigmas.append(float(sigma))
    np.testing.assert_allclose(sigmas, case["sigma"], rtol=0, atol=1e-6)
