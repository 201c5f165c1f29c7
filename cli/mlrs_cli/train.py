"""`mlrs train`: meta-train a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console

from mlrs_core.errors import InvalidFieldError
from mlrs_train.errors import NoRunError, RunExistsError, SettingChangedError, TrainError
from mlrs_train.evolution.engines.choice import ENGINES, EngineChoice
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.hypergradient.settings import HypergradientSettings
from mlrs_train.method import SETTINGS, Method, Settings

if TYPE_CHECKING:  # it needs the extra `train`, which the command's help does not
    from mlrs_train.session import Outcome, Session

PAPER = HypergradientSettings()
EVOLUTION = EvolutionSettings()
INTERRUPTED = 130
"""The exit status of a training that was told to stop: whoever waits for its model must not go on."""
ENGINE = ("engine", "workers", "ray_address")
"""The options of `EngineChoice`."""
RUNNING = ("out", "resume", "checkpoint_every", *ENGINE)
"""The options that are no settings: the result does not depend on them."""
LISTS = ("tasks", "families")
"""The settings that are lists, separated by commas."""


def _both(name: str) -> str:
    """Return the default of a setting that both methods have, for the help."""
    paper, evolution = getattr(PAPER, name), getattr(EVOLUTION, name)
    return str(paper) if paper == evolution else f"{paper}; evolution: {evolution}"


@click.command(context_settings={"show_default": True})
@click.option(
    "--method",
    type=click.Choice(sorted(SETTINGS)),
    default=HypergradientSettings.method,
    help="hypergradient: the paper's algorithm, one-step gradients of a held-out loss. "
    "evolution: populations of networks, judged on whole trainings.",
)
@click.option("--seed", default=PAPER.seed, help="Seeds everything that is drawn at random.")
@click.option(
    "--hidden-size", type=int, show_default=_both("hidden_size"), help="The network's hidden units."
)
@click.option(
    "--meta-lr", type=float, show_default=_both("meta_lr"), help="Adam's learning rate on the network."
)
@click.option(
    "--inputs",
    type=click.Choice(["all", "loss", "progress"]),
    default=EVOLUTION.inputs,
    help="[evolution] What the network sees. loss: all but its place in the horizon; "
    "progress: all but the losses. Both are for measuring what the rest is worth.",
)
@click.option(
    "--log-every",
    type=int,
    show_default=_both("log_every"),
    help="Steps of a task, or updates, per line of log.",
)
@click.option(
    "--tasks",
    default=",".join(PAPER.tasks),
    metavar="NAMES",
    help="[hypergradient] What to train on, separated by commas. digits-cnn: images with a small CNN; "
    "topics-char: English text with a character GRU.",
)
@click.option("--epochs", default=PAPER.epochs, help="[hypergradient] Passes over each task's data.")
@click.option(
    "--t-val", default=PAPER.t_val, help="[hypergradient] Update the network every so many steps of a task."
)
@click.option("--num-layers", default=PAPER.num_layers, help="[hypergradient] LSTM layers of the network.")
@click.option(
    "--gate-layout",
    type=click.Choice(["ifgo", "ifog"]),
    default=PAPER.gate_layout,
    help="[hypergradient] Order of the gates; ifog also subtracts 1 from the forget gate.",
)
@click.option(
    "--meta-weight-decay",
    default=PAPER.meta_weight_decay,
    help="[hypergradient] Adam's weight decay on the network.",
)
@click.option(
    "--weight-decay",
    default=PAPER.weight_decay,
    help="[hypergradient] SGD's weight decay on the base models.",
)
@click.option("--updates", default=EVOLUTION.updates, help="[evolution] Updates of the network.")
@click.option(
    "--minutes", type=float, help="[evolution] Train for this long instead; not the same bytes each time."
)
@click.option(
    "--families",
    default="",
    show_default="all",
    metavar="NAMES",
    help="[evolution] Families to draw tasks from, separated by commas.",
)
@click.option("--population", default=EVOLUTION.population, help="[evolution] Networks per task; even.")
@click.option("--tasks-per-update", default=EVOLUTION.tasks_per_update, help="[evolution] Tasks per update.")
@click.option(
    "--cloning-updates",
    default=EVOLUTION.cloning_updates,
    help="[evolution] Of the updates, the first so many learn from tuned schedules: a warm start.",
)
@click.option(
    "--cloning-steps",
    default=EVOLUTION.cloning_steps,
    help="[evolution] Steps by gradient in each of these, on all that was seen so far.",
)
@click.option(
    "--cloning-lr", default=EVOLUTION.cloning_lr, help="[evolution] Adam's first learning rate in these."
)
@click.option("--min-horizon", default=EVOLUTION.min_horizon, help="[evolution] The shortest task, in steps.")
@click.option("--max-horizon", default=EVOLUTION.max_horizon, help="[evolution] The longest task, in steps.")
@click.option(
    "--objective",
    type=click.Choice(["final", "window", "area"]),
    default=EVOLUTION.objective,
    help="[evolution] Validation loss after the last step, over the last tenth, or over all.",
)
@click.option("--sigma", default=EVOLUTION.sigma, help="[evolution] Standard deviation of a perturbation.")
@click.option(
    "--final-meta-lr", default=EVOLUTION.final_meta_lr, help="[evolution] What --meta-lr falls to at the end."
)
@click.option(
    "--averaging", default=EVOLUTION.averaging, help="[evolution] What the average network keeps per step."
)
@click.option(
    "--validate-every", default=EVOLUTION.validate_every, help="[evolution] Updates between validations."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    show_default="1; with --engine ray, a core each",
    help="[evolution] Processes that share the tasks of an update: up to the cores of this machine, and no "
    "more than --tasks-per-update, or some idle. The result is the same with any number.",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default=EngineChoice.engine,
    help="[evolution] What runs the workers. local: this machine; ray: a Ray cluster "
    "(pip install 'mlrs[ray]').",
)
@click.option(
    "--ray-address",
    metavar="HOST:PORT",
    show_default="a cluster of its own on this machine",
    help="[evolution] The Ray cluster to use with --engine ray; `auto`: the one this machine is part of.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the model, log, curves, TensorBoard events and checkpoint.",
)
@click.option("--resume", is_flag=True, help="Go on with the training in --out, with its own settings.")
@click.option(
    "--checkpoint-every",
    type=click.IntRange(min=1),
    show_default=_both("checkpoint_every"),
    help="Steps of all tasks together, or updates, between checkpoints.",
)
@click.pass_context
def train(context: click.Context, /, **options: Any) -> None:
    """Meta-train a model: how learning rates should follow losses.

    The result, OUT/model.safetensors, depends on the settings alone: the same command makes the same
    bytes, whether it was interrupted or not. Ctrl-C saves a checkpoint, and the status is then 130.
    Options that name a method in brackets belong to it alone.

    \b
    Examples:
      mlrs train --out runs/paper                      train as the shipped model `paper` was
      mlrs train --out runs/quick --epochs 5           a look in ten seconds
      mlrs train --out runs/quick --resume             go on after an interruption
      mlrs train --out runs/deep --tasks digits-cnn --num-layers 2 --hidden-size 40
      mlrs train --method evolution --out runs/drift --minutes 30
      mlrs train --method evolution --out runs/drift --workers 8 --tasks-per-update 16
      tensorboard --logdir runs                        watch
    """
    typed = {
        name: value
        for name, value in options.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    given = {name: value for name, value in typed.items() if name not in RUNNING}
    asked = {name: typed[name] for name in ENGINE if name in typed}
    for name in given.keys() & set(LISTS):
        given[name] = [word.strip() for word in given[name].split(",") if word.strip()]
    out = options["out"]
    try:
        choice = EngineChoice(**asked)
        session = _open(out, given, asked, resume=options["resume"])
        every = options["checkpoint_every"] or session.settings.checkpoint_every
        with _engine(session.method, choice):
            outcome = session.run(Console(), checkpoint_every=every)
    except (InvalidFieldError, TrainError) as error:
        raise _usage(error) from error
    except OSError as error:
        raise click.ClickException(
            f"cannot write {error.filename or out}: {error.strerror or error}"
        ) from error
    _report(out, outcome)
    if outcome.digest is None:
        context.exit(INTERRUPTED)


def _open(out: Path, given: dict[str, Any], asked: dict[str, Any], *, resume: bool) -> Session:
    """Return the training that these settings start, or the one in the folder."""
    method = given.pop("method", None)
    try:
        from mlrs_train.session import resume_session, start_session

        if resume:
            session = resume_session(out, method, given)
            _check_engine(session.settings.method, asked)
            return session
        _check_engine(method or HypergradientSettings.method, asked)
        return start_session(out, _settings(method or HypergradientSettings.method, given))
    except ImportError as error:  # of torch here, of a task's library inside
        raise click.ClickException(f"{error.name} is missing: pip install 'mlrs[train]'") from error


def _check_engine(method: str, asked: dict[str, Any]) -> None:
    """Refuse the engine's options where each step needs the one before it."""
    if asked and method != EvolutionSettings.method:
        raise InvalidFieldError(
            next(iter(asked)), f"is for --method {EvolutionSettings.method}; {method} trains in one process"
        )


@contextmanager
def _engine(method: Method, choice: EngineChoice) -> Iterator[None]:
    """Let a training by evolution use an engine, which is closed at the end."""
    from mlrs_train.evolution.method import Evolution

    if not isinstance(method, Evolution):
        yield
        return
    with closing(choice.open()) as method.engine:
        yield


def _settings(method: str, given: dict[str, Any]) -> Settings:
    """Return a method's settings; the others' are refused, by name."""
    kind: Any = SETTINGS[method]
    if foreign := given.keys() - {field.name for field in dataclasses.fields(kind)}:
        name = min(foreign)
        raise InvalidFieldError(name, f"is no setting of --method {method}")
    settings: Settings = kind(**given)
    return settings


def _usage(error: InvalidFieldError | TrainError) -> click.ClickException:
    """Return an error of the training as one that names the option."""
    match error:
        case InvalidFieldError(field=field):
            return click.BadParameter(str(error).removeprefix(f"{field}: "), param_hint=_option(field))
        case SettingChangedError(setting=setting):
            return click.BadParameter(f"{error}; leave it out to go on", param_hint=_option(setting))
        case RunExistsError():
            return click.BadParameter(
                f"{error}: go on with --resume, or take another", param_hint=_option("out")
            )
        case NoRunError():
            return click.BadParameter(f"{error}: start one without --resume", param_hint=_option("out"))
        case _:
            return click.ClickException(str(error))


def _option(name: str) -> str:
    return f"'--{name.replace('_', '-')}'"


def _report(out: Path, outcome: Outcome) -> None:
    if outcome.digest is None:
        click.echo(f"Interrupted after {outcome.steps_done:,} of {outcome.steps_total:,} steps, and saved.")
        click.echo(f"Go on with: mlrs train --resume --out {out}")
        return
    click.echo(f"{out / 'model.safetensors'}: sha256 {outcome.digest}")
    click.echo(f"{out / 'curves.png'}, {out / 'log.jsonl'}: how it got there")
