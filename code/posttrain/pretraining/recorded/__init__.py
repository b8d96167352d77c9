"""Recorded runs of Stage 0: what each runs, and the numbers that its outcomes give."""
