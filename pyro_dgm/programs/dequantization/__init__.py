"""A density of reals as the mass of integers: noise in the unit cell, drawn by the guide."""
