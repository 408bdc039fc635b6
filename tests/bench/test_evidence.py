"""The evidence: its recipes, that it chooses as `calibrate` does, that folds and students are put together rightly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.evidence.auroc import QUESTIONS, Clips, ablation, clips_of
from bench.evidence.gathered import CHOSEN, SetEvidence, _claim, _policies, to_json
from bench.evidence.outcomes import ROWS, Came, Folds, Over, Row, Student, over_folds
from bench.evidence.page import page
from bench.evidence.recipe import DISTILLED, FOLDER, Recipe, frames_in, read_recipe, targets_in
from jobs.calibrate import CalibrateOptions, calibrate
from jobs.labelling.inputs import read_policy
from jobs.reporting.figures import Figures
from jobs.selecting.applied import applied
from jobs.selecting.judged import open_student, targets_of
from pipeline.report.page import render
from schemas.errors import SettingsError
from schemas.policy import CostFlags, Wish
from tests.jobs.judging import make_judged

COSTS = CostFlags(open=0.0, decode=0.01, student=0.01, teacher=0.5)
RECIPE = Recipe(title="made up", about="Made up.", teacher="nobody", train={}, costs=COSTS, draws=50)


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [make_judged(tmp_path_factory.mktemp("judged") / str(s), 320, seed=s)[0] for s in range(2)]


@pytest.fixture(scope="module")
def folds(students: list[str]) -> list[Folds]:
    return [Folds((Student(url, COSTS),)) for url in students]


@pytest.mark.parametrize("name", [p.stem for p in sorted(FOLDER.glob("*.yaml"))])
def test_recipes_are_whole(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.names[0] == DISTILLED and recipe.may_cost and recipe.about
    for arm in recipe.names:
        spec = recipe.spec(arm, seed=2, fold=max(0, recipe.folds - 1))
        assert spec.seed == 2 and spec.folds == recipe.folds
        assert list(recipe.seeds(arm, 1)) == [1]
        own = recipe.arms.get(arm, {}).get("own")
        if own is not None:  # what it is made of comes before it, with as many seeds
            assert recipe.names.index(own) < recipe.names.index(arm)
            assert len(recipe.seeds(own, 3)) >= len(recipe.seeds(arm, 3))
    assert recipe.claim_cost in recipe.may_cost
    assert None not in (recipe.costs.open, recipe.costs.decode, recipe.costs.student, recipe.costs.teacher)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"no recipe 'nothing': fight, interaction, interaction-hard, motion, quick"
    ):
        read_recipe("nothing")
    for find in (lambda: targets_in(tmp_path, 0), lambda: frames_in(tmp_path)):
        with pytest.raises(SettingsError, match="holds no"):
            find()
    (tmp_path / "targets-1").mkdir()
    assert targets_in(tmp_path, 3) == str(tmp_path / "targets-1")
    (tmp_path / "fold-3" / "targets-9").mkdir(parents=True)
    assert targets_in(tmp_path, 3) == str(tmp_path / "fold-3" / "targets-9")
    (tmp_path / "targets-2").mkdir()
    with pytest.raises(SettingsError, match="2 are there, one is wanted"):
        targets_in(tmp_path, 0)


@pytest.mark.parametrize("row", [CHOSEN, *ROWS[:4]], ids=lambda r: r.name)
def test_policies_are_those_that_calibrate_chooses(students: list[str], folds: list[Folds], row: Row) -> None:
    wish = Wish(max_cost=0.5)
    options = CalibrateOptions(row.kinds, row.scores, name="same", costs=COSTS, overwrite=True)
    came = folds[0].calibrated(row, wish)
    try:
        calibrate(students[0], wish, options)
    except SettingsError:
        assert came is None
        return
    student = open_student(students[0])
    found = applied(student, read_policy(student, "same"), targets_of(student), num_draws=2)
    assert came is not None and came.share == found.outcome.share
    assert came.ratio == pytest.approx(found.outcome.ratio)
    assert came.right_V.mean() == pytest.approx(found.outcome.accuracy.value)
    assert (came.agrees_V == (found.said_V == found.sim.reference_V)).all()


def came(right: list[int], dense: list[int], groups: list[int], seconds: float = 1.0) -> Came:
    values = [np.array(x, np.float64) for x in (right, dense, right)]
    return Came(*values, np.array(groups, np.uint64), 10, 2, seconds, 0.0, seconds, 4.0)


def test_folds_add_up_and_students_are_averaged() -> None:
    whole = over_folds([came([1, 0], [1, 1], [0, 1]), came([1], [0], [2], 3.0)])
    assert whole.right_V.tolist() == [1, 0, 1] and (whole.clips, whole.deferred) == (20, 4)
    assert whole.ratio == pytest.approx(8 / 8) and whole.share == 0.2
    over = Over(
        (came([1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 2, 3]), came([1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 2, 3])), 200
    )
    assert over.accuracy.value == pytest.approx(7 / 8) and over.gain.value == pytest.approx(1 / 8)
    assert over.gain.low < over.gain.value < over.gain.high
    same = over.over(over)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)  # paired


def test_a_score_that_knows_answers_its_question_and_one_of_chance_does_not() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.random((2, 900)) < 0.7
    pays = (teacher & ~student).astype(np.float64)
    clips = Clips(
        student, teacher, np.arange(900, dtype=np.uint64) // 3, {"knows": pays}, {"chance": rng.random(900)}
    )
    knows, chance = ablation([clips, clips], 50)
    assert (knows.of, chance.of) == ("teacher", "student") and set(knows.auroc) == set(QUESTIONS)
    assert knows.auroc["the teacher alone is right"].value == 1.0
    assert knows.auroc["the teacher is wrong"].value < 0.5
    for e in chance.auroc.values():
        assert e.low < 0.5 < e.high


def test_a_page_and_numbers_of_a_set(folds: list[Folds]) -> None:
    policies = list(_policies(RECIPE, folds))
    dense = policies[0].over
    assert policies[0].name == "dense" and dense.gain.value == 0.0 and dense.ratio == 1.0
    oracle = next(p for p in policies if p.name.startswith("gain oracle"))
    chosen = next(p for p in policies if p.name == CHOSEN.name)
    assert oracle.over.share <= chosen.over.share + 0.01
    claim = _claim(RECIPE, folds, policies)
    assert claim.no_worse is not None and claim.no_worse.ratio <= 1
    assert claim.within is not None and claim.within.ratio <= RECIPE.claim_cost + 0.1
    auroc = tuple(ablation([clips_of(f.students) for f in folds], 20))
    scores = {line.score for line in auroc if line.of == "student"}
    assert {"msp", "gain", "gain-in-context"} <= scores
    found = SetEvidence(RECIPE, (), {"other": "not there"}, tuple(policies), claim, auroc, 80, 40, 200)
    again = SetEvidence(
        RECIPE, (), {"other": "not there"}, tuple(_policies(RECIPE, folds)), claim, auroc, 80, 40, 200
    )
    assert to_json(found) == to_json(again)
    figures = Figures()
    html = render(page([found], figures, [("a", "b")]))
    assert (
        "made up: saved" in html
        and "other: not there" in html
        and list(figures.drawn) == ["frontier-made-up"]
    )
    for row in policies:
        assert row.name in html
