"""The tasks: their data, their networks, and what tells one version of them from another."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlrs_bench.errors import DataFileError, TaskFileError
from mlrs_bench.sources import digest_of_files
from mlrs_bench.task import Splits, Task
from mlrs_bench.tasks import TASKS, cifar10
from mlrs_bench.tasks.task_file import load_task_file


@pytest.mark.parametrize("name", TASKS)
def test_tasks_can_be_trained_and_judged(name: str) -> None:
    """Each task has its name, loads the same data twice, and has a loss with gradients everywhere."""
    task = TASKS[name]()
    splits, again = task.load(), task.load()
    assert task.name == name
    assert task.fingerprint(splits) == TASKS[name]().fingerprint(again)
    check(task, splits)


def check(task: Task, splits: Splits) -> None:
    """Check that no example is in two parts, and that a batch gives finite gradients."""
    network = task.network()
    batch = splits.train[: task.batch_size]
    loss = task.loss(network(batch.inputs), batch.targets)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's
    assert loss.isfinite()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    seen = {row.numpy().tobytes() for row in splits.train.inputs}
    for part in (splits.valid, splits.test):
        assert len(part) >= 80
        shared = sum(row.numpy().tobytes() in seen for row in part.inputs)
        assert shared <= 0.02 * len(part)  # text repeats itself here and there
    if task.accuracy is not None:
        with torch.no_grad():
            assert 0 <= task.accuracy(network(batch.inputs), batch.targets) <= 1


def test_noise_is_in_the_training_labels_only() -> None:
    """The noisy task trains on wrong labels, and is judged on the right ones."""
    clean, noisy = TASKS["digits-cnn"]().load(), TASKS["digits-cnn-noisy"]().load()
    assert 0.3 < (clean.train.targets != noisy.train.targets).double().mean() < 0.42
    assert torch.equal(clean.test.targets, noisy.test.targets)


def test_a_fingerprint_sees_data_network_loss_and_settings(tiny: Task) -> None:
    """A task's digest changes with whatever a result depends on."""
    splits = tiny.load()
    changed = Splits(train=splits.train[:-1], valid=splits.valid, test=splits.test)
    prints = {tiny.fingerprint(splits), tiny.fingerprint(changed)}
    for other in (
        replace(tiny, horizon=21),
        replace(tiny, batch_size=11),
        replace(tiny, weight_decay={"sgd": 0.0, "adamw": 0.0}),
        replace(tiny, network=lambda: torch.nn.Linear(3, 3)),
        replace(tiny, loss=lambda outputs, targets: torch.nn.functional.cross_entropy(outputs, targets) / 2),
        replace(tiny, version="2"),
    ):
        prints.add(other.fingerprint(splits))
    assert len(prints) == 8


def scaled(outputs: torch.Tensor, targets: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Return a loss with a setting."""
    return scale * torch.nn.functional.cross_entropy(outputs, targets)


class Plain(torch.nn.Linear):
    """A layer."""


class Doubled(torch.nn.Linear):
    """The same layer but for what it computes."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return twice the layer's outputs."""
        return 2 * super().forward(inputs)


def test_a_fingerprint_sees_code_and_its_settings(tiny: Task) -> None:
    """Losses by their arguments, closures and fields, inner modules by their code, and the accuracy count."""

    def bent(by: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        return lambda outputs, targets: scaled(outputs, targets) + by

    def layers(kind: type[torch.nn.Linear]) -> Callable[[], torch.nn.Module]:
        kinds = type("Layer", (kind,), {})  # so that both print alike
        return lambda: torch.nn.Sequential(kinds(3, 3))

    splits = tiny.load()
    variants = [
        tiny,
        replace(tiny, loss=functools.partial(scaled, scale=2.0)),
        replace(tiny, loss=functools.partial(scaled, scale=3.0)),
        replace(tiny, loss=bent(1.0)),
        replace(tiny, loss=bent(2.0)),
        replace(tiny, loss=torch.nn.CrossEntropyLoss()),
        replace(tiny, loss=torch.nn.CrossEntropyLoss(label_smoothing=0.1)),
        replace(tiny, accuracy=None),
        replace(tiny, network=layers(Plain)),
        replace(tiny, network=layers(Doubled)),
    ]
    prints = [task.fingerprint(splits) for task in variants]
    assert len(set(prints)) == len(variants)
    again = replace(tiny, loss=torch.nn.CrossEntropyLoss(label_smoothing=0.1))
    assert again.fingerprint(splits) == prints[6]


def test_changed_code_changes_the_digest(tmp_path: Path) -> None:
    """The digest of a folder's code changes with a file's content or name, and with no other file."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "one.py").write_text("x = 1\n")
    first = digest_of_files(tmp_path, ["**/*.py"])
    (tmp_path / "notes.txt").write_text("nothing")
    assert digest_of_files(tmp_path, ["**/*.py"]) == first
    (tmp_path / "inner" / "one.py").write_text("x = 2\n")
    changed = digest_of_files(tmp_path, ["**/*.py"])
    (tmp_path / "inner" / "one.py").rename(tmp_path / "inner" / "two.py")
    assert len({first, changed, digest_of_files(tmp_path, ["**/*.py"])}) == 3


def test_cifar10_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks of CIFAR-10 read a file of JPEG images; the second time, what was decoded before."""
    monkeypatch.setattr(cifar10, "COUNTS", {"train": 300, "test": 100})
    monkeypatch.setattr(cifar10, "VALID", 100)
    file = write_images(tmp_path / "images.npz", {"train": 320, "test": 120})
    for make in (cifar10.cifar10_cnn_bn, cifar10.cifar10_resnet):
        task = make(file, tmp_path / "cache")
        splits = task.load()
        assert splits.train.inputs.shape == (200, 3, 16, 16)
        assert splits.train.inputs.mean((0, 2, 3)).abs().max() < 1e-4
        check(task, splits)
    (kept,) = (tmp_path / "cache").iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(Image, "open", None)
        assert torch.equal(task.load().test.inputs, splits.test.inputs)
    kept.unlink()
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataFileError, match=r"images.npz: cannot be read as CIFAR-10"):
        task.load()


def write_images(file: Path, counts: dict[str, int]) -> Path:
    """Write random images as the module says; return the file."""
    rng, arrays = np.random.default_rng(0), {}
    for part, count in counts.items():
        encoded = []
        for _ in range(count):
            stream = io.BytesIO()
            Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(stream, "JPEG")
            encoded.append(stream.getvalue())
        arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(encoded), np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, encoded)])
        arrays[f"{part}_labels"] = rng.integers(10, size=count, dtype=np.uint8)
    np.savez(file, allow_pickle=False, **arrays)
    return file


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("TASKS = []", "must define TASKS"),
        ("raise ValueError('oh')", "cannot be run: ValueError: oh"),
        ("from mlrs_bench.tasks import TASKS as T\nTASKS = [T['linear']()]", "'linear' is taken"),
        (
            "from tests.bench.tiny_tasks import TASKS\nobject.__setattr__(TASKS[0], 'name', 'A b')",
            "'A b' must be lowercase",
        ),
    ],
)
def test_bad_task_files_say_what_is_wrong(tmp_path: Path, source: str, message: str) -> None:
    """A file of tasks that cannot be used is refused with its name and the reason."""
    file = tmp_path / "mine.py"
    file.write_text(source, encoding="utf-8")
    with pytest.raises(TaskFileError, match=r"mine\.py: ") as caught:
        load_task_file(file, taken=list(TASKS))
    assert message in str(caught.value)
