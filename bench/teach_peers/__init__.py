"""Contenders of `bench.teach`, one small file each, and what they share.

``python -m bench.teach_peers.NAME work.json`` does one job in a process of its own: the clips of the videos in a
table become Parquet files of logits and uncertainties. `work` says what the job is; `models` holds the teachers,
which note each batch; `archive` makes the videos; `processes` runs a contender and samples its memory; `measure`
holds the arithmetic.
"""
