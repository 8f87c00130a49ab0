"""Data sets: readers of files and folders, splits, levels, and toys whose distribution is known."""
