"""Preference alignment: pairs of answers, the losses over them, and the runs."""
