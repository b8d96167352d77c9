"""Alignment of the fine-tuned model: samples, pairs, the run, and what a judge says of it."""
