"""Judges: verdicts on pairs of answers, the rates made of them, and how a refusal is seen."""
