"""One run: its directory, the training of all its seeds, its evaluation, and reading it back."""
