"""Safety: refusals where they are due, answers where they are not, and SafeDPO's loss."""
