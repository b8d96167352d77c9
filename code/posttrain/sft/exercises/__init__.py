"""The graders of Stage 1's exercises."""
