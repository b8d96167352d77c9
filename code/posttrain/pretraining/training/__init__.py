"""Training runs, what is measured on them, and what can go wrong."""
