"""From logits to text: filters, the draw, and decoding with a cache."""
