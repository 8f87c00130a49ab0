"""How contestants take turns, and what their ratios should be."""
