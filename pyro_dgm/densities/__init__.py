"""How values are scored: in float32 or better, counts in float64, whatever dtype data and networks have."""
