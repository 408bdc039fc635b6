"""Stores: a folder of Parquet shards that is resumable, provable and readable by anyone.

`ShardStore` creates, plans and commits; `read`, `verify` and `mend` do what their names say.
"""
