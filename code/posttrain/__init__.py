"""Post-Training, Hands On: the code behind every number in the book."""

__version__ = "0.1.0"
