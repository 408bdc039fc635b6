"""What `jobs.calibrate` and `jobs.simulate` are made of."""
