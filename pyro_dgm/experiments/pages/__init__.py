"""Offline pages: what a run is and how far it can be trusted, and runs side by side."""
