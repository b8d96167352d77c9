"""Preference alignment: pairs of answers, the losses on them, and what comes of both."""
