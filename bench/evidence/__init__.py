"""The seed paper's experiment, end to end: see `bench.evidence.__main__`."""
