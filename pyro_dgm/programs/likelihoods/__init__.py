"""Observation models p(x | z): which distribution the data have, given the network's output."""
