"""Training on pairs: one row for prompt and both answers, the reference, the run."""
