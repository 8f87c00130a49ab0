"""Export to ArviZ: draws, densities and diagnostics, with dims named after the plates."""
