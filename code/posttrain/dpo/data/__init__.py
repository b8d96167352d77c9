"""Preference data: pairs of answers, read, built, checked and turned into tokens."""
