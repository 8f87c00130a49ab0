"""The process around a run: its random state, modes and handlers, and the ranks beside it."""
