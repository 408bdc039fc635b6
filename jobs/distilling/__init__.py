"""What `jobs.distill` is made of."""
