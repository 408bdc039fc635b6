"""Where the time of a run went, as a table."""

from __future__ import annotations

from pipeline.runner import RunSummary

STAGES = (
    ("start", "worker", "connecting decoders and loading models"),
    ("wait", "worker", "waiting for frames"),
    ("teacher", "worker", "batches to the device and through the teacher"),
    ("uncertainty", "worker", "uncertainties and the table"),
    ("write", "worker, beside the others", "encoding and committing Parquet"),
    ("read", "decoder", "waiting for storage, or for a processor"),
    ("decode", "decoder", "decoding and scaling, processor time"),
    ("transfer", "both", "frames on their way to the worker"),
)
"""Stage, who spends it, and on what."""


def profile_table(summary: RunSummary) -> str:
    """Seconds of each stage, summed over all workers and decoders, and milliseconds a planned clip."""
    spent = summary.seconds_by_stage
    clips = max(1, summary.planned)
    lines = [f"{'stage':<12} {'seconds':>9} {'ms a clip':>10}   of"]
    for name, who, what in STAGES:
        if name in spent:
            lines.append(f"{name:<12} {spent[name]:>9.2f} {spent[name] * 1e3 / clips:>10.2f}   {who}: {what}")
    for name in sorted(spent.keys() - {s[0] for s in STAGES}):
        lines.append(f"{name:<12} {spent[name]:>9.2f} {spent[name] * 1e3 / clips:>10.2f}")
    lines.append(
        f"{'the run':<12} {summary.seconds:>9.2f} {summary.seconds * 1e3 / clips:>10.2f}   on the clock"
    )
    return "\n".join(lines)
