"""Sweeps: trials of one experiment under other settings, taken by as many workers as share a folder."""
