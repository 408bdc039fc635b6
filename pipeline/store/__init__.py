"""Stores: a folder of Parquet shards that is resumable, provable and readable by anyone.

`ShardStore` creates, plans and commits; `read`, `verify` and `mend` do what their names say. Underneath:
`files` and `faults` (whole files on any storage), `plan_files`, `data_files`, `footer` and `document` (what
is in them), and `in_force` (what still counts).
"""
