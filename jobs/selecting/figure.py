"""Accuracy against cost, as a picture."""

from __future__ import annotations

from collections.abc import Iterable

from jobs.simulate import SimulateReport
from pipeline.select.policies import usual_aggregation

_MOST_LINES = 9
_NUM_PLAIN = 10


def draw_frontier(report: SimulateReport, path: str) -> None:
    """Draw the frontier of each policy, by max-probability and by the gain, into a file; its ending says what kind of
    picture. Members that cost more than one as good are left out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    labelled = report.about["labelled_videos"] > 0
    there = {point.score for point in report.points}
    shown_scores = {"", "msp", "gain-in-context" if "gain-in-context" in there else "gain"}
    shown: dict[str, list[tuple[float, float]]] = {}
    for point in report.points:
        if point.policy == "budget":  # all but the same points as clip-threshold's
            continue
        if point.aggregation == usual_aggregation(point.policy) and point.score in shown_scores:
            name = " ".join(word for word in (point.policy, point.score) if word)
            value = (point.outcome.accuracy if labelled else point.outcome.agreement).value
            shown.setdefault(name, []).append((point.outcome.ratio, value))
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    colours = plt.get_cmap("tab20" if len(shown) > _NUM_PLAIN else "tab10")
    for i, (name, points) in enumerate(shown.items()):
        x, y = zip(*_frontier(points), strict=True)
        marker, size = ("*", 12) if len(points) == 1 else ("o", 3)
        line = ":" if name.endswith("oracle") else "-"
        axes.plot(x, y, line, color=colours(i), marker=marker, markersize=size, linewidth=1, label=name)
    axes.axhline(shown["dense"][0][1], color="0.6", linewidth=0.8)
    axes.set_xlabel("cost: decoding, student and teacher, share of the dense teacher's")
    axes.set_ylabel("accuracy of videos" if labelled else "agreement with the dense teacher")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right", ncols=1 + len(shown) // _MOST_LINES)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _frontier(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points of cost and worth, by rising cost, without those that are worth no more than a cheaper one."""
    found: list[tuple[float, float]] = []
    for cost, worth in sorted(points, key=lambda p: (p[0], -p[1])):
        if not found or worth > found[-1][1]:
            found.append((cost, worth))
    return found
