"""What `jobs.label` and `jobs.export` are made of."""
