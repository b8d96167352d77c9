"""Recorded answers to what readers ask before a run of their own."""
