"""The graders of Stage 0's exercises."""
