"""Stage 2: preference alignment with pairs of answers."""
