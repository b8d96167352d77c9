"""DPO on policies so small that every step of its derivation can be checked by numbers."""
