"""Accuracy against cost, as a picture."""

from __future__ import annotations

from jobs.simulate import SimulateReport

_MOST_LINES = 9
_NUM_PLAIN = 10


def draw_frontier(report: SimulateReport, path: str) -> None:
    """Draw the points of each policy, pooled by replace-mean, into a file; its ending says what kind of picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    labelled = report.about["labelled_videos"] > 0
    shown: dict[str, list[tuple[float, float]]] = {}
    for point in report.points:
        if point.policy == "budget":  # all but the same points as clip-threshold's
            continue
        if point.aggregation == "replace-mean" and point.score in ("", "gain", "msp"):
            name = " ".join(word for word in (point.policy, point.score) if word)
            value = (point.outcome.accuracy if labelled else point.outcome.agreement).value
            shown.setdefault(name, []).append((point.outcome.ratio, value))
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    colours = plt.get_cmap("tab20" if len(shown) > _NUM_PLAIN else "tab10")
    for i, (name, points) in enumerate(shown.items()):
        x, y = zip(*sorted(points), strict=True)
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
