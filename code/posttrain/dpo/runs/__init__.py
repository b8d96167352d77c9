"""A reader's own run on pairs: from a file of preferences to a model that can be used."""
