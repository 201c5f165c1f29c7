"""The README's table of frameworks: its lines are put into a training of each framework, which then runs.

The trainings below are what users have already; where they say `@1`, `@2`, `@3`, they get the README's lines.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlrs
from tests.support.daemon import Daemon
from tests.support.frameworks import need

README = Path(__file__).parents[3] / "README.md"
TORCH = """
import torch
@1
torch.manual_seed(0)
torch.set_num_threads(1)
inputs = torch.randn(40, 16, 4)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""
LOOP = """
for batch in inputs:
    loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    @3
    optimizer.step()
"""
NUMPY = """
import numpy as np
rng = np.random.default_rng(0)
xs = rng.normal(size=(40, 16, 4))
ys = (xs.sum(-1) > 0).astype(int)
"""
TRAININGS: dict[str, tuple[list[str], str]] = {
    "PyTorch": (["torch"], TORCH + "@2\n" + LOOP),
    "Accelerate": (
        ["torch", "accelerate"],
        TORCH
        + """
from accelerate import Accelerator
accelerator = Accelerator(cpu=True)
model, optimizer = accelerator.prepare(model, optimizer)
@2
"""
        + LOOP.replace("loss.backward()", "accelerator.backward(loss)"),
    ),
    "timm": (
        ["torch"],  # the scheduler does not import timm, which fits few releases of PyTorch
        TORCH + "@2\nupdates = 0\n" + LOOP + "    updates += 1\n    scheduler.step_update(updates)\n",
    ),
    "Lightning": (
        ["torch", "lightning"],
        """
import lightning, torch, warnings
warnings.simplefilter("ignore")
@1
class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Linear(4, 1)
    def training_step(self, batch, batch_idx):
        return (self.model(batch) - batch.sum(1, keepdim=True)).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
module, loader = Module(), torch.utils.data.DataLoader(torch.randn(640, 4), 16)
settings = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
            "enable_progress_bar": False, "enable_model_summary": False}
@2
@3
""",
    ),
    "Transformers": (
        ["torch", "transformers"],
        """
import os, tempfile, torch
os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import Trainer, TrainingArguments
@1
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 1)
    def forward(self, x, labels):
        return {"loss": (self.linear(x) - labels).square().mean()}
xs = torch.randn(640, 4)
dataset = [{"x": x, "labels": x.sum(0, keepdim=True)} for x in xs]
arguments = TrainingArguments(tempfile.mkdtemp(), num_train_epochs=1, per_device_train_batch_size=16,
                              use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True)
trainer = Trainer(Model(), arguments, train_dataset=dataset)
@2
@3
""",
    ),
    "Keras": (
        ["keras", "jax"],
        """
import os
os.environ["KERAS_BACKEND"] = "jax"
import keras
@1
"""
        + NUMPY
        + """
x, y = xs.reshape(640, 4), ys.reshape(640)
model = keras.Sequential([keras.layers.Dense(1, activation="sigmoid")])
model.compile(optimizer=keras.optimizers.SGD(0.1), loss="binary_crossentropy")
@2
@3
""",
    ),
    "JAX, Optax": (
        ["jax", "optax"],
        """
import jax, jax.numpy as jnp, optax
@1
"""
        + NUMPY
        + """
def loss_fn(params, x):
    return ((x @ params - x.sum(-1)) ** 2).mean()
params = jnp.zeros(4)
@2
opt_state = optimizer.init(params)
@jax.jit
def step(params, opt_state, x):
    loss, grads = jax.value_and_grad(loss_fn)(params, x)
    @3
    return optax.apply_updates(params, updates), opt_state
for x in xs:
    params, opt_state = step(params, opt_state, x)
jax.block_until_ready(params)
""",
    ),
    "scikit-learn": (
        ["sklearn"],
        NUMPY
        + """
from sklearn.linear_model import SGDClassifier
@1
model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01)
@2
for X, y in zip(xs, ys):
    @3
""",
    ),
    "XGBoost": (
        ["xgboost"],
        NUMPY
        + """
import xgboost
@1
data = xgboost.DMatrix(xs.reshape(640, 4), ys.reshape(640))
parameters = {"objective": "binary:logistic", "nthread": 1}
@2
@3
""",
    ),
    "LightGBM": (
        ["lightgbm"],
        NUMPY
        + """
import lightgbm
@1
data = lightgbm.Dataset(xs.reshape(640, 4), ys.reshape(640))
parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1}
@2
@3
""",
    ),
    "any other": (
        [],
        """
@1
@2
for step in range(40):
    loss = 2.0 / (1 + step)
    @3
""",
    ),
}
"""By the name in the table: what has to be installed, and the training."""
ROW = re.compile(r"^\| (?:\[([^\]]+)\]\([^)]+\)|([^|]+?)) \| (`.*?`) \|", re.MULTILINE)


def rows() -> dict[str, list[str]]:
    """Return the lines of each framework in the README's table."""
    table = (
        README.read_text(encoding="utf-8").partition("| framework | three lines |")[2].partition("\n\n")[0]
    )
    return {match[1] or match[2]: re.findall(r"`([^`]+)`", match[3]) for match in ROW.finditer(table)}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon."""
    with Daemon(tmp_path_factory.mktemp("daemon") / "data") as daemon:
        yield daemon


def test_every_row_is_tried() -> None:
    """The table has the frameworks that are tried here, with three lines each."""
    found = rows()
    assert set(found) == set(TRAININGS)
    assert {name: len(lines) for name, lines in found.items() if len(lines) != 3} == {}


@pytest.mark.parametrize("name", TRAININGS)
def test_three_lines_are_enough(daemon: Daemon, tmp_path: Path, name: str) -> None:
    """A training with the three lines of its framework is advised at every step."""
    needed, text = TRAININGS[name]
    for module in needed:
        need(module)
    for number, line in enumerate(rows()[name], 1):
        assert f"@{number}" in text
        text = text.replace(f"@{number}", line)
    task = re.sub(r"\W+", "-", name)
    script = tmp_path / "script.py"
    script.write_text(text.replace('"my-task"', f'"{task}"'), encoding="utf-8")
    environment = {
        **os.environ,
        "MLRS_TARGET": daemon.address,
        "OMP_NUM_THREADS": "1",
        "JAX_PLATFORMS": "cpu",
    }
    ran = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env=environment,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    with mlrs.connect(daemon.address, timeout_s=20.0) as advisor:
        (run,) = advisor.runs(prefix=f"{task}/")
    assert run.next_step >= 39
