"""The decoder: its layers, its weights, and what it costs."""
