"""Weights in 4 bits, by hand and by library."""
