"""Training runs: packing, the loss, memory, the engines, and the evaluation."""
