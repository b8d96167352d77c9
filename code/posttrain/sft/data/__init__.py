"""Data sets: a verified one, those of the hub, and what to ask of both."""
