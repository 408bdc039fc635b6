"""Tasks: one shard in, one table and its failures out. They know nothing of Ray or of storage."""
