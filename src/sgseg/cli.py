"""The command line: parses, calls one function of the package, prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sgseg.errors import ConfigError, MissingExtraError, SGSegError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Chest X-ray segmentation that writes its own report and is guided by it.",
)


@app.callback()
def _commands() -> None:
    """Keeps `train` a command of its own while it is the only one."""


@app.command()
def train(
    config: Annotated[str | None, typer.Argument(help="A shipped configuration or a YAML file.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="key=value …")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; default runs/CONFIG.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run, exactly where it stopped.")
    ] = None,
) -> None:
    """Train a model.

    Example: sgseg train sgseg-compact data.root=QaTa stages.0.epochs=3
    """
    try:
        from sgseg.training import config as configs
        from sgseg.training import run
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"training (it found no {error.name})", "train") from error
    if (config is None) == (resume is None):
        raise ConfigError(f"give a configuration ({', '.join(configs.names())}) or --resume RUN")
    if resume is not None:
        weights = run.resume(resume)
    else:
        loaded = configs.load(str(config), overrides or ())
        weights = run.start(loaded, out or Path("runs") / Path(str(config)).stem)
    print(f"trained: {weights}")


def main() -> None:
    """Entry point: what a user can cure is one line on stderr and exit code 1; Ctrl-C is 130."""
    try:
        app()
    except SGSegError as error:
        print(f"sgseg: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("sgseg: interrupted", file=sys.stderr)
        sys.exit(130)
