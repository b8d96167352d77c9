"""LoRA and DoRA: layers, models that carry them, merging, and files."""
