"""`mlrs train`: meta-train a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console

from mlrs_core.errors import InvalidFieldError
from mlrs_train.errors import NoRunError, RunExistsError, SettingChangedError, TrainError
from mlrs_train.hypergradient.settings import HypergradientSettings
from mlrs_train.method import SETTINGS

if TYPE_CHECKING:  # it needs the extra `train`, which the command's help does not
    from mlrs_train.session import Outcome, Session

DEFAULT = HypergradientSettings()
RUNNING = ("out", "resume", "checkpoint_every")
"""The options that are no settings: the result does not depend on them."""


@click.command(context_settings={"show_default": True})
@click.option(
    "--method",
    type=click.Choice(sorted(SETTINGS)),
    default=HypergradientSettings.method,
    help="hypergradient: the paper's algorithm, one-step gradients of a held-out loss.",
)
@click.option(
    "--tasks",
    default=",".join(DEFAULT.tasks),
    metavar="NAMES",
    help="What to train on, separated by commas. digits-cnn: images with a small CNN; "
    "topics-char: English text with a character GRU.",
)
@click.option("--epochs", default=DEFAULT.epochs, help="Passes over each task's data.")
@click.option("--t-val", default=DEFAULT.t_val, help="Update the network every so many steps of a task.")
@click.option("--seed", default=DEFAULT.seed, help="Seeds the network, the base models and their data order.")
@click.option("--hidden-size", default=DEFAULT.hidden_size, help="Hidden units of the network.")
@click.option("--num-layers", default=DEFAULT.num_layers, help="LSTM layers of the network.")
@click.option(
    "--gate-layout",
    type=click.Choice(["ifgo", "ifog"]),
    default=DEFAULT.gate_layout,
    help="Order of the gates; ifog also subtracts 1 from the forget gate.",
)
@click.option("--meta-lr", default=DEFAULT.meta_lr, help="Adam's learning rate on the network.")
@click.option(
    "--meta-weight-decay", default=DEFAULT.meta_weight_decay, help="Adam's weight decay on the network."
)
@click.option("--weight-decay", default=DEFAULT.weight_decay, help="SGD's weight decay on the base models.")
@click.option("--log-every", default=DEFAULT.log_every, help="Steps of a task in one line of the log.")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the model, log, curves, TensorBoard events and checkpoint.",
)
@click.option("--resume", is_flag=True, help="Go on with the training in --out, with its own settings.")
@click.option(
    "--checkpoint-every",
    default=1000,
    type=click.IntRange(min=1),
    help="Steps of all tasks together between checkpoints.",
)
@click.pass_context
def train(context: click.Context, /, **options: Any) -> None:
    """Meta-train a model: how learning rates should follow losses.

    The result, OUT/model.safetensors, depends on the settings alone: the same command makes the same
    bytes, whether it was interrupted or not. Ctrl-C saves a checkpoint.

    \b
    Examples:
      mlrs train --out runs/paper                      train as the shipped model `paper` was
      mlrs train --out runs/quick --epochs 5           a look in ten seconds
      mlrs train --out runs/quick --resume             go on after an interruption
      mlrs train --out runs/deep --tasks digits-cnn --num-layers 2 --hidden-size 40
      tensorboard --logdir runs                        watch
    """
    settings = {name: value for name, value in options.items() if name not in RUNNING}
    settings["tasks"] = [name.strip() for name in settings["tasks"].split(",") if name.strip()]
    given = {
        name: value
        for name, value in settings.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    out = options["out"]
    try:
        session = _open(out, given if options["resume"] else settings, resume=options["resume"])
        outcome = session.run(Console(), checkpoint_every=options["checkpoint_every"])
    except (InvalidFieldError, TrainError) as error:
        raise _usage(error) from error
    _report(out, outcome)


def _open(out: Path, settings: dict[str, Any], *, resume: bool) -> Session:
    method = settings.pop("method", None)
    try:
        from mlrs_train.session import resume_session, start_session

        if resume:
            return resume_session(out, method, settings)
        return start_session(out, SETTINGS[method](**settings))
    except ImportError as error:  # of torch here, of a task's library inside
        raise click.ClickException(f"{error.name} is missing: pip install 'mlrs[train]'") from error


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
