"""Files on the disk: folders, the store, hashes of code, texts and converted models."""
