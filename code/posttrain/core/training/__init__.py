"""The training loop of every stage, its optimizer and its checkpoints."""
