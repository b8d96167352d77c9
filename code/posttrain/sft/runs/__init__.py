"""A reader's own run: from a file of examples to a model that can be used."""
