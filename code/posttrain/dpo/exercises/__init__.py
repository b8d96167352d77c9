"""The graders of Stage 2's exercises."""
