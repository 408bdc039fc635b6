"""What `bench.distill` compares."""
