"""The recorded runs of Stage 2: what takes too long for a build."""
