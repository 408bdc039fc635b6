"""The files of cluster/deploy as tests see them, and the commands in them as Locum's own command line reads them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from cluster.sizing import Node, Size, choose, shortage
from schemas.cluster import RayOptions

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "cluster" / "deploy"
MIB = 1 << 20

_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|Ki|Mi|Gi)?")
_MARGIN, _FLOOR = 1.5, 100 * MIB
"""Of frames that may wait, as `cluster.runner` has it for a Ray of its own."""


def loaded(name: str) -> Any:
    """The YAML or JSON document in a file that holds one."""
    return yaml.safe_load((DEPLOY / name).read_text())


def quantity(text: str) -> float:
    """A number as Kubernetes writes it.

    Raises
    ------
    ValueError
        If it is none.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"not a quantity: {text!r}")
    return float(match[1]) * _UNITS[match[2] or ""]


def parsed(command: str) -> dict[str, Any]:
    """The arguments of a ``locum`` command, as its own parser reads them; a teacher's settings are the demo's."""
    from jobs.cli import build_app, read_config

    words = shlex.split(command)
    if words[0] != "locum":
        raise ValueError(f"not a command of Locum: {command}")
    example = ["--config", str(ROOT / "examples" / "demo-teacher.yaml")]
    own = words[: words.index("--")] if "--" in words else words
    config = read_config([words[1], *example]) if "--config" in own else None
    _, bound, _ = build_app(config).parse_args(words[1:], exit_on_error=False, print_error=False)
    return dict(bound.arguments)


def options_of(command: str) -> RayOptions:
    """How a ``locum`` command is spread over Ray."""
    options = parsed(command)["cluster"]
    if not isinstance(options, RayOptions):
        raise TypeError(f"{command}: it says nothing of Ray")
    return options


def sized(nodes: list[Node], options: RayOptions) -> Size:
    return choose(nodes, options, device="cuda")


def missing(nodes: list[Node], options: RayOptions) -> str:
    """What `cluster.runner` would say does not fit; empty where all fits."""
    return shortage(nodes, sized(nodes, options), buffer_bytes=options.buffer_mb << 20)


def frames_bytes(options: RayOptions, workers: int) -> float:
    """Object store that a node should have where the frames of so many workers may wait."""
    return workers * (options.buffer_mb << 20) * _MARGIN + _FLOOR
