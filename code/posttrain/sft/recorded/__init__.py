"""Recorded runs of Stage 1: what each runs, and the numbers that its outcomes give."""
