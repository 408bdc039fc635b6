"""The commands that divide videos between a student and its teacher, as the command line calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from pydantic import ValidationError

from jobs.commands.flags import Flag, Json, at_least, refused
from schemas.errors import EXIT_OK, SettingsError
from schemas.policy import AGGREGATIONS, SCORES, AggregationName, CostFlags, PolicyKind, ScoreName, Wish

if TYPE_CHECKING:
    from jobs.calibrate import CalibrateReport
    from jobs.simulate import SimulateReport

Words = Parameter(negative=(), consume_multiple=True)


def simulate(
    *students: str,
    split: str = "test",
    targets: str | None = None,
    costs: CostFlags = CostFlags(),
    scores: Annotated[tuple[ScoreName, ...], Words] = (),
    aggregations: Annotated[tuple[AggregationName, ...], Words] = (),
    draws: int = 1000,
    seed: int = 0,
    table: str | None = None,
    figure: str | None = None,
    as_json: Json = False,
    config: str | None = None,
) -> int:
    """What every policy would have cost and got right, from what student and teacher said already. No model is run.

    Parameters
    ----------
    students
        Folder or URL of a student; several, of the folds of one set, are taken together.
    split
        Whose clips: test, val or calibration. Of calibration only those that the confidence heads were fitted on.
    targets
        Folder or URL of the target store, where it has moved.
    costs
        What things cost, where it is not to be measured.
    scores
        What says how much a clip wants the teacher; all where not given.
    aggregations
        From clips to a video's label; all where not given.
    draws
        Bootstrap draws, over groups, of every interval.
    seed
        Of the draws.
    table
        File for all points, as Parquet.
    figure
        File for accuracy against cost, as .png or .svg.
    as_json
        Print one JSON object.
    config
        YAML file with these settings; flags win.
    """
    from jobs.commands.console import emit
    from jobs.labelling.output import write_files
    from jobs.reporting.frontier import frontier_figure
    from jobs.simulate import SimulateOptions
    from jobs.simulate import simulate as run_simulate
    from pipeline.columns import as_parquet
    from pipeline.exports.document import OutFile
    from pipeline.report.style import as_file, kind_of

    at_least("--draws", draws, 100)
    if figure is not None:
        kind_of(figure)
    options = SimulateOptions(
        split, targets, costs, scores or SCORES, aggregations or AGGREGATIONS, draws, seed
    )
    report = run_simulate(students, options)
    if table is not None:
        rows = as_parquet(report.table())
        write_files(table, [OutFile("", lambda: rows)], one_file=True, overwrite=True)
    if figure is not None:
        picture = as_file(frontier_figure(report), kind_of(figure))
        write_files(figure, [OutFile("", lambda: picture)], one_file=True, overwrite=True)
    emit(report.to_json(), as_json=as_json, text=_frontier_text(report))
    return EXIT_OK


def calibrate(
    student: str,
    *,
    budget: float | None = None,
    max_cost: float | None = None,
    accuracy_drop: float | None = None,
    max_disagreement: float | None = None,
    confidence: float = 0.95,
    policy: Annotated[tuple[PolicyKind, ...], Words] = (),
    score: Annotated[tuple[ScoreName, ...], Words] = (),
    aggregation: AggregationName | None = None,
    passage: float | None = None,
    name: str | None = None,
    targets: str | None = None,
    costs: CostFlags = CostFlags(),
    seed: int = 0,
    overwrite: Flag = False,
    as_json: Json = False,
    config: str | None = None,
) -> int:
    """Turn a wish into a policy for `locum label`, on videos that the student never trained on.

    Parameters
    ----------
    student
        Folder or URL of the student.
    budget
        The teacher looks at no more than this share of the clips.
    max_cost
        All costs no more than this share of what the dense teacher would.
    accuracy_drop
        The accuracy of videos is no more than so much below the dense teacher's, by the estimate and what chance may
        have had in it. The dense teacher itself where nothing cheaper is known to be.
    max_disagreement
        Guaranteed: no more than this share of videos gets another label than the dense teacher would give.
    confidence
        Of the guarantee: the chance that the calibration videos do not mislead.
    policy
        Kinds of policy to try; where not given: thresholds on clips and on whole videos, and but for a guarantee on
        parts of videos.
    score
        Scores to try; all where not given.
    aggregation
        From clips to a video's label. Where not given: the teacher alone for parts of videos, else the mean of whoever
        answered.
    passage
        Seconds: decide on longer videos by passages of so much at most, of clips that follow each other. For films.
    name
        The policy's name; after the wish where not given.
    targets
        Folder or URL of the target store, where it has moved.
    costs
        What things cost, where it is not to be measured.
    seed
        Of the video that is drawn from each group, and of other draws.
    overwrite
        Replace a policy of that name that was calibrated for something else.
    as_json
        Print one JSON object.
    config
        YAML file with these settings; flags win.
    """
    from jobs.calibrate import CalibrateOptions
    from jobs.calibrate import calibrate as run_calibrate
    from jobs.commands.console import emit

    try:
        wish = Wish(
            budget=budget,
            max_cost=max_cost,
            accuracy_drop=accuracy_drop,
            max_disagreement=max_disagreement,
            confidence=confidence,
        )
    except ValidationError as e:
        raise SettingsError("; ".join(refused(error) for error in e.errors())) from e
    if passage is not None and passage <= 0:
        raise SettingsError(f"--passage is a number of seconds above 0: {passage:g}")
    defaults = CalibrateOptions()
    options = CalibrateOptions(
        policy or defaults.kinds,
        score or defaults.scores,
        aggregation,
        passage,
        name,
        targets,
        costs,
        seed,
        overwrite,
    )
    report = run_calibrate(student, wish, options)
    emit(report.to_json(), as_json=as_json, text=_policy_text(report))
    return EXIT_OK


def _policy_text(report: CalibrateReport) -> str:
    doc, e, outcome = report.document, report.document.expected, report.chosen_on
    said = doc.policy.model_dump(exclude_defaults=True)
    lines = [
        "policy: " + ", ".join(f"{k} {v}" for k, v in said.items()) + f", pooled by {doc.aggregation}",
        f"on the {e.videos} videos ({e.groups} groups) that it was chosen on: {e.share:.1%} of clips to the teacher, "
        f"{e.ratio:.1%} of its cost, the dense teacher's label for {e.agreement:.1%} of videos",
    ]
    if e.accuracy is not None:
        g = outcome.gain
        lines.append(
            f"  accuracy {e.accuracy:.4f}, {g.value:+.4f} [{g.low:+.4f}, {g.high:+.4f}] against the dense teacher"
        )
    if e.optimism:
        lines.append(
            f"  on videos drawn anew such a choice promised {e.optimism:.4f} more than it came to: as much was asked "
            "beyond the wish"
        )
    if doc.wish.accuracy_drop is not None and doc.policy.kind == "dense":
        lines.append(
            "  nothing cheaper than the dense teacher is known to lose so little: allow more, or have more held-out "
            "videos with labels, of five groups at least"
        )
    if (c := doc.certificate) is not None:
        lines += [
            f"guaranteed: with confidence {1 - c.delta:g} at most {c.alpha:g} of videos get another label than the "
            "dense teacher's",
            f"  {c.losses} of {c.groups} groups did; member {c.member + 1} of {c.members}, p = {c.p_value:.3g}; look "
            f"{c.look} at these groups"
            + (f": all of them hold with {1 - c.spent:.4g}" if c.look > 1 else ""),
        ]
        if c.member == 0:
            lines.append("  nothing cheaper than the dense teacher could be guaranteed")
        lines += [f"  holds for {c.holds_for}", "  void with " + "; ".join(c.void_if)]
        lines += [f"  left out: {n} videos ({reason})" for reason, n in c.left_out.items()]
    return "\n".join([*lines, report.url])


COST_STEPS = (0.1, 0.25, 0.4, 0.6)
"""Shares of the dense teacher's cost of which the best point is printed."""


def _frontier_text(report: SimulateReport) -> str:
    from pipeline.select.policies import usual_aggregation

    about, labelled = report.about, report.about["labelled_videos"] > 0
    per = about["clips_per_video"]
    dense, c = report.points[0].outcome, report.costs
    what = "accuracy" if labelled else "agreement"
    lines = [
        f"{about['split']}: {about['clips']} clips of {about['videos']} videos in {about['groups']} groups; "
        f"{per['least']} to {per['most']} clips a video, {per['median']:g} in the middle",
        f"seconds: {c.decode:.4f} to decode one of video, {c.student:.4f} of the student for a clip, {c.teacher:.4f} "
        "of the teacher",
        f"dense teacher: {about['dense_seconds']:.1f} s"
        + (
            f", accuracy of videos {dense.accuracy.value:.4f}"
            if labelled
            else ", and no labels: agreement with it is shown"
        ),
        "",
        f"{what} of videos at no more than a share of the dense cost, pooled by replace-mean (video-part: by the "
        "teacher alone); * not below the dense teacher's by a point (95 %)",
        f"  {'policy':16s} {'score':21s}" + "".join(f"{f'{step:.0%}':>10s}" for step in COST_STEPS),
    ]
    rows: dict[tuple[str, str], list[str]] = {}
    for point in report.points:
        if point.aggregation == usual_aggregation(point.policy):
            rows.setdefault((point.policy, point.score), [])
    for key, cells in rows.items():
        mine = [
            p.outcome
            for p in report.points
            if (p.policy, p.score) == key and p.aggregation == usual_aggregation(p.policy)
        ]
        for step in COST_STEPS:
            within = [o for o in mine if o.ratio <= step]
            if not within:
                cells.append(f"{'-':>10s}")
                continue
            best = max(within, key=lambda o: (o.accuracy if labelled else o.agreement).value)
            value = (best.accuracy if labelled else best.agreement).value
            sure = best.gain.low > -0.01 if labelled else best.agreement.low > 0.99
            cells.append(f"{value:9.4f}{'*' if sure else ' '}")
        lines.append(f"  {key[0]:16s} {key[1]:21s}" + "".join(cells))
    if report.areas:
        lines += ["", "clips: part of what an oracle would gain by deferring, and over max-probability"]
        for score, (_, part, over) in report.areas.items():
            lines.append(
                f"  {score:21s} {part.value:7.1%} [{part.low:.1%}, {part.high:.1%}]   "
                f"{over.value:+.4f} [{over.low:+.4f}, {over.high:+.4f}]"
            )
    lines += ["", "the best of a row was chosen on these very videos; `locum calibrate` chooses on others"]
    return "\n".join(lines)
