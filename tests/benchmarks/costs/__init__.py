"""What is measured of how costs grow, and what is computed beyond."""
