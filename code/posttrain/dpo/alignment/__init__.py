"""Alignment: the start, its pairs, the run, and how its manner has changed."""
