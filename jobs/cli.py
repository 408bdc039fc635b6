"""The command line: which commands there are, where settings come from, and what an exception means to a shell.

Commands are imported when they are called, so ``locum --help`` loads neither torch nor Ray nor Arrow. Exit codes are
those of `schemas.errors`:

    0  done: everything planned is there or quarantined
    1  a bug, or a fault that Locum does not know; a traceback is printed
    2  the settings or the manifest are wrong; nothing was computed
    3  unfinished: time was up, or a shard failed; run again
    4  the store is damaged, or not what was asked for
    5  the circuit breaker opened: too many videos could not be reached
    75 the storage was away; run again
    130, 143  interrupted; run again
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from cyclopts import App
from cyclopts.config import Dict

from schemas.errors import (
    EXIT_INTERRUPTED,
    EXIT_SETTINGS,
    EXIT_TERMINATED,
    EXIT_UNEXPECTED,
    LocumError,
    SettingsError,
)

if TYPE_CHECKING:
    from cyclopts import CycloptsError
    from rich.panel import Panel

COMMANDS = {
    "demo": ("jobs.commands.demo:demo", "Render a small archive, run the main job over it, show the result."),
    "index": ("jobs.commands.teach:index", "Find, name and probe videos."),
    "teach": ("jobs.commands.teach:teach", "Cache a teacher's logits and uncertainties for every clip."),
    "plan": (
        "jobs.commands.plan:plan",
        "Say what `teach` would take of machines, hours, bytes and money.",
    ),
    "frames": ("jobs.commands.students:frames", "Keep a small view of every clip, for training."),
    "distill": ("jobs.commands.students:distill", "Train a student from cached targets and kept frames."),
    "calibrate": (
        "jobs.commands.select:calibrate",
        "Turn a wish into a policy that divides videos between models.",
    ),
    "simulate": ("jobs.commands.select:simulate", "What every policy would have cost and got right."),
    "label": ("jobs.commands.label:label", "Label videos by student and teacher, as a policy says."),
    "export": ("jobs.commands.export:export", "Turn labels into CSV, label tools' formats or subtitles."),
    "report": (
        "jobs.commands.report:report",
        "One page of what labels cost, saved and lost, and what to look at.",
    ),
    "status": ("jobs.commands.stores:status", "What a store holds and what is pending."),
    "failures": ("jobs.commands.stores:failures", "List the videos that could not be read, or only in part."),
    "retry": ("jobs.commands.stores:retry", "Plan failed videos anew; the next run computes them."),
    "verify": ("jobs.commands.stores:verify", "Prove a store: no gap, no duplicate, no stranger."),
    "prune": ("jobs.commands.stores:prune", "Remove videos for good, and sweep what interrupted runs left."),
    "derive": ("jobs.commands.stores:derive", "Recompute the uncertainty columns from the cached logits."),
    "submit": ("jobs.commands.submit:submit", "Run a command on a Ray cluster, and follow it."),
    "jobs": ("jobs.commands.submitted:jobs", "List, look at, follow or stop submitted commands."),
}
_FREE_MAPPINGS = ("kwargs", "label_map", "mirror", "split_map", "student_kwargs")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``locum``. Ends the process."""
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """Run one command line; its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        check_packages()
        if any(name.startswith("LOCUM_LOG") for name in os.environ):
            from pipeline.logs import configure

            configure()
        return build_app(read_config(argv))(argv, exit_on_error=False) or 0
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else EXIT_UNEXPECTED
    except KeyboardInterrupt as e:
        print("\nlocum: interrupted; run the same command again to continue", file=sys.stderr)
        return EXIT_TERMINATED if e.args == (signal.SIGTERM,) else EXIT_INTERRUPTED
    except LocumError as e:
        print(f"locum: {e}", file=sys.stderr)
        return e.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as e:
        from cyclopts import CycloptsError

        if isinstance(e, CycloptsError):  # cyclopts has printed it
            return EXIT_SETTINGS
        raise


def build_app(config: dict[str, Any] | None = None) -> App:
    """The cyclopts application; ``config`` holds a command's settings by the names of its flags."""
    app = App(
        name="locum",
        version=release,
        help_format="plaintext",
        help="Run an action-recognition teacher over a video archive once; cache what it says; label the rest cheaply.",
        config=[Dict(config, source="--config")] if config else [],
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        error_formatter=_as_panel,
    )
    for name, (target, text) in COMMANDS.items():
        app.command(target, name=name, help=text)
    return app


def config_path(argv: Sequence[str]) -> str | None:
    """What ``--config`` names on a command line; None where it is not given."""
    path = None
    for i, word in enumerate(argv):
        if word == "--":
            break
        if word == "--config" and i + 1 < len(argv):
            path = argv[i + 1]
        elif word.startswith("--config="):
            path = word.removeprefix("--config=")
    return path


def read_config(argv: Sequence[str]) -> dict[str, Any] | None:
    """Settings of the file named by ``--config``, under the command's name; None where there is none.

    Raises
    ------
    SettingsError
        If the file cannot be read or is not a mapping.
    """
    path = config_path(argv)
    if path is None or not argv or argv[0] not in COMMANDS:
        return None
    import fsspec
    import yaml

    try:
        with fsspec.open(path, "rt") as f:
            body = yaml.safe_load(f)
    except (OSError, ValueError) as e:
        raise SettingsError(f"--config {path}: {e}") from e
    except yaml.YAMLError as e:
        raise SettingsError(f"--config {path}: not YAML: {e}") from e
    if not isinstance(body, dict):
        raise SettingsError(
            f"--config {path}: a mapping of settings is wanted, it holds {type(body).__name__}"
        )
    return {argv[0]: _free_mappings_as_json(body)}


def check_packages() -> None:
    """The four import packages have generic names; make sure that they are Locum's own.

    Raises
    ------
    SettingsError
        If another distribution's package of that name comes first on ``sys.path``.
    """
    home = Path(__file__).resolve().parent.parent
    for name in ("schemas", "pipeline", "cluster", "jobs"):
        found = importlib.util.find_spec(name)
        where = Path(found.origin).resolve().parent.parent if found and found.origin else None
        if where != home:
            raise SettingsError(
                f"the package {name!r} that Python finds is {where}'s, not Locum's ({home}): install Locum in an "
                "environment of its own, or take that folder off PYTHONPATH"
            )


def _as_panel(error: CycloptsError) -> Panel:
    """As cyclopts shows it, but for settings that pydantic refuses: those by their flags, one a line."""
    from cyclopts import CycloptsPanel, UnknownOptionError
    from cyclopts import ValidationError as Refused
    from pydantic import ValidationError

    from jobs.commands.flags import refused

    text: Any = error
    if isinstance(error, Refused) and error.argument and isinstance(error.__cause__, ValidationError):
        text = "\n".join(refused(e, error.argument.name) for e in error.__cause__.errors())
    elif isinstance(error, UnknownOptionError) and tuple(error.command_chain or ()) == ("submit",):
        text = f"{error} The command and its flags come after --: locum submit [flags] -- teach ..."
    return CycloptsPanel(text)


def _free_mappings_as_json(body: dict[str, Any]) -> dict[str, Any]:
    """Mappings with keys of the user's own as JSON text, as their flags take them, so that numbers stay numbers."""
    return {
        key: json.dumps(value)
        if key.replace("-", "_") in _FREE_MAPPINGS and isinstance(value, dict)
        else _free_mappings_as_json(value)
        if isinstance(value, dict)
        else value
        for key, value in body.items()
    }


def release() -> str:
    """Locum's version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("locum")
    except PackageNotFoundError:
        return "unknown"


def _terminate(signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signum)


if __name__ == "__main__":
    main()
