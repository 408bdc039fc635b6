"""What of a command line may be sent to a cluster, and what is refused before anything is sent.

Ray shows a job's command and its environment to everybody who reaches the dashboard, so neither may hold a secret. The
files of this machine are not there, unless they are sent along. It does not know whether videos, weights or stores can
be reached from the cluster: the command says that itself, there.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.cli import COMMANDS, build_app, config_path, read_config
from pipeline.uris import scrubbed, without_secrets
from schemas.errors import SettingsError

VERBS = tuple(name for name in COMMANDS if name not in ("submit", "jobs"))
_PACKAGES = ("jobs", "cluster", "pipeline", "schemas")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|SECRET|ACCESS_?KEY|API_?KEY|PRIVATE_?KEY|ACCOUNT_?KEY|STORAGE_?KEY|"
    r"CONNECTION_?STRING|CREDENTIALS?|PASSPHRASE|TOKENS?(?![A-Z])|^FSSPEC_.*KEY$"
)
_NAMES_A_FILE = re.compile(r"_(FILE|PATH|DIR)$")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_OUTPUTS = {
    "out": "-o",
    "table": "--table",
    "figure": "--figure",
    "figures": "--figures",
    "tensorboard": "--tensorboard",
}
_USAGE = "locum submit [flags] -- teach ..."
_REMEDY = (
    "Ray shows it to everybody who reaches the dashboard. Let the nodes have what they need: a role of the instance, a "
    "mounted file (AWS_SHARED_CREDENTIALS_FILE, AWS_PROFILE), or their own environment"
)


@dataclass(frozen=True, slots=True)
class Command:
    """A command line that may be sent. ``config`` is what its file of settings holds, where that is sent along."""

    words: tuple[str, ...]
    config: bytes | None = None

    @property
    def verb(self) -> str:
        return self.words[0]

    @property
    def entrypoint(self) -> str:
        """For the shell of a node.

        ``locum`` and not ``python -m jobs.cli``: the ``python`` that comes first there may be one without Locum, and
        ``-m`` would look for ``jobs`` in the working directory first. Where there is no ``locum``, the shell says 127.
        """
        return shlex.join(("locum", *self.words))

    @property
    def answers_in_json(self) -> bool:
        return "--json" in self.words


def checked_command(words: Sequence[str], folder: str | None = None) -> Command:
    """The command of ``words``, which are seen from ``folder`` once they are there.

    Raises
    ------
    SettingsError
        If it is none that a cluster can run, holds a secret, names a cluster of its own, or a file of settings or an
        output that would lie on this machine.
    CycloptsError
        If its flags are wrong, as far as they are known here; cyclopts has printed why.
    """
    if not words:
        raise SettingsError(f"which command is to run on the cluster? {_USAGE}")
    if words[0] not in VERBS:
        raise SettingsError(
            f"{words[0]!r} is no command that a cluster can run ({_USAGE}); those are {', '.join(VERBS)}"
        )
    for word in words:
        if _has_secret(word):
            raise SettingsError(
                f"the command holds a password or a signature, at {without_secrets(scrubbed(word))!r}. {_REMEDY}"
            )
    if any(word == "--ray" or word.startswith("--ray=") for word in words):
        raise SettingsError(
            "--ray does not go with submit: a submitted command runs on the cluster that it is sent to"
        )
    path = config_path(words)
    remote = path is not None and bool(_URL.match(path)) and not path.startswith("file:")
    config = None if path is None or remote else _config_in(folder, path)
    _check_flags(words, config, all_known=not remote)
    return Command(tuple(words), None if config is None else config.read_bytes())


def checked_env(pairs: Sequence[str]) -> dict[str, str]:
    """Variables of NAME=VALUE.

    Raises
    ------
    SettingsError
        If a pair has no name, or is a secret.
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise SettingsError(f"--env wants NAME=VALUE, got {name!r}")
        secret = _SECRET_NAME.search(name.upper()) and not _NAMES_A_FILE.search(name.upper())
        within = value.lstrip().startswith("{") and _SECRET_NAME.search(value.upper())
        if secret or within or _has_secret(value):
            raise SettingsError(f"--env {name} looks like a secret. {_REMEDY}")
        found[name] = value
    return found


def checked_folder(folder: str) -> str:
    """A folder that can be sent along.

    Raises
    ------
    SettingsError
        If it is none, or would hide a part of Locum there.
    """
    path = Path(folder)
    if not path.is_dir():
        raise SettingsError(f"--working-dir {folder}: there is no such folder here")
    hides = [p for p in _PACKAGES if (path / f"{p}.py").exists() or (path / p / "__init__.py").exists()]
    if hides and not (path / "jobs" / "cli.py").exists():
        raise SettingsError(
            f"--working-dir {folder}: its {hides[0]!r} would hide Locum's own on the cluster; give it another name"
        )
    return folder


def _config_in(folder: str | None, path: str) -> Path:
    """The file of settings that is sent along, and lies at ``path`` seen from the folder that is sent."""
    if folder is None:
        raise SettingsError(
            f"--config {path} lies on this machine: send the folder that holds it (--working-dir), or name a URL"
        )
    inside = os.path.normpath(path)
    if os.path.isabs(path) or path.startswith("file:") or inside.split(os.sep)[0] == os.pardir:
        raise SettingsError(
            f"--config {path} is not within --working-dir {folder}: name it as seen from there"
        )
    file = Path(folder) / inside
    if not file.is_file():
        raise SettingsError(f"--config {path}: there is no file {file}; it is looked for in --working-dir")
    return file


def _check_flags(words: Sequence[str], config: Path | None, *, all_known: bool) -> None:
    """As the command line itself would, without running anything. What a file at a URL says is not known here."""
    from cyclopts import CycloptsError, MissingArgumentError

    settings = None if config is None else read_config([words[0], "--config", str(config)])
    app = build_app(settings)
    try:
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as e:
        if isinstance(e, MissingArgumentError) and not all_known:
            return
        command, bound, _ = app.parse_args(words, exit_on_error=False)  # prints it
    if not getattr(command, "__module__", "").startswith("jobs.commands"):
        raise SettingsError(f"that asks for help: locum {shlex.join(words)}")
    bound.apply_defaults()
    cluster = bound.arguments.get("cluster")
    ray = bound.arguments.get("ray") if cluster is None else cluster.ray
    if ray is not None:
        raise SettingsError(
            f"--config: 'ray: {ray}' does not go with submit: a submitted command runs on the cluster it is sent to"
        )
    for name, flag in _OUTPUTS.items():
        place = bound.arguments.get(name)
        if isinstance(place, str) and not _URL.match(place) and not os.path.isabs(place):
            raise SettingsError(
                f"{flag} {place}: on the cluster that is a folder which goes with the job: give a URL, or a whole path "
                "that all nodes reach"
            )


def _has_secret(word: str) -> bool:
    flag, _, value = word.partition("=")
    value = value if flag.startswith("-") else word
    return scrubbed(value) != value or bool(_URL.match(value) and without_secrets(value) != value)
