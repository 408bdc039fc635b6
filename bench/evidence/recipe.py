"""A data set of the evidence: where its stores are, how its students are trained, and which rows are wanted.

A recipe is YAML (`bench/evidence/recipes`). Its folder holds target stores (``targets-*``; or ``fold-K/targets-*``,
where each fold has a teacher of its own), a frame store (``frames-*``), and what further teachers are named. The costs
of a recipe are those of one machine, once: policies are chosen by them, so that the same stores give the same numbers
everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from pipeline.demo.motion import MIRROR_X
from schemas.errors import SettingsError
from schemas.policy import CostFlags
from schemas.spec import Spec
from schemas.student import TrainSpec

FOLDER = Path(__file__).parent / "recipes"
DISTILLED = "from the cache"
"""The arm that policies are calibrated for."""
_OURS = ("seeds", "further", "own")


class Recipe(Spec):
    """One data set."""

    title: str
    about: str
    """What a reader must know of it."""
    teacher: str
    """Who the teacher is, in words."""
    folds: int = Field(0, ge=0)
    """Cross-fitting over so many folds of groups; 0: the manifest's splits."""
    train: dict[str, Any]
    """How students are trained: settings of `TrainSpec`."""
    costs: CostFlags = CostFlags()
    """What things cost; measured where it is not said."""
    may_cost: tuple[float, ...] = (0.25, 0.6)
    """Shares of the dense cost that policies are calibrated for."""
    claim_cost: float = 0.6
    """The share among them by which the set's claim is judged: what is saved is the rest."""
    draws: int = 2000
    """Bootstrap draws."""
    arms: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Other students beside the one from the cache: settings that differ, and ``seeds`` (how many), ``further``
    (another teacher's targets) and ``own`` (the arm whose words are the targets)."""

    @model_validator(mode="after")
    def _claim_is_judged(self) -> Recipe:
        if self.claim_cost not in self.may_cost:
            raise ValueError(f"claim_cost {self.claim_cost:g} is none of may_cost {self.may_cost}")
        return self

    def spec(self, arm: str, seed: int, fold: int) -> TrainSpec:
        """How a student is trained."""
        changes = {k: v for k, v in self.arms.get(arm, {}).items() if k not in _OURS}
        settings = {**self.train, **changes, "seed": seed}
        if settings.get("mirror") == "demo":
            settings["mirror"] = MIRROR_X
        if self.folds:
            settings |= {"folds": self.folds, "fold": fold}
        return TrainSpec(**settings)

    def seeds(self, arm: str, most: int) -> range:
        return range(1, min(most, self.arms.get(arm, {}).get("seeds", most)) + 1)

    @property
    def names(self) -> list[str]:
        """All arms, what others are made of first."""
        others = sorted(self.arms, key=lambda name: "own" in self.arms[name])
        return [DISTILLED, *others]


def read_recipe(name: str) -> Recipe:
    """A recipe of ours by name, or the file of one."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    try:
        body: Mapping[str, Any] = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        ours = ", ".join(sorted(p.stem for p in FOLDER.glob("*.yaml")))
        raise SettingsError(f"there is no recipe {name!r}: {ours}, or the path of a .yaml") from None
    return Recipe(**body)


def the_only(folder: Path, pattern: str) -> Path | None:
    """What a pattern finds in a folder; None where nothing is there.

    Raises
    ------
    SettingsError
        If there are several.
    """
    found = sorted(p for p in folder.glob(pattern) if p.is_dir())
    if len(found) > 1:
        raise SettingsError(f"{folder}/{pattern}: {len(found)} are there, one is wanted")
    return found[0] if found else None


def targets_in(folder: Path, fold: int) -> str:
    """The targets of a fold: its own, or the only ones."""
    found = the_only(folder, f"fold-{fold}/targets-*") or the_only(folder, "targets-*")
    if found is None:
        raise SettingsError(f"{folder} holds no targets-* (nor fold-{fold}/targets-*): see docs/evidence.md")
    return str(found)


def frames_in(folder: Path) -> str:
    found = the_only(folder, "frames-*")
    if found is None:
        raise SettingsError(f"{folder} holds no frames-*: `locum frames` keeps them")
    return str(found)
