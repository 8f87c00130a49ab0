"""Declarations that take their sizes from the data: models of parts, densities, games, and programs of one's own."""
