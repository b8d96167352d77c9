"""Losses on pairs of answers: DPO and its relatives, and the log-probabilities they take."""
