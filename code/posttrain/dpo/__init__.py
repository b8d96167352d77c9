"""Preference alignment: DPO derived, preference data, training, judges, and SafeDPO."""
