"""Stage 0: a decoder written from scratch, trained on Shakespeare, and sampled from."""
