"""What every stage shares: assets, artifacts, training, statistics, goals and figures."""
