"""Distributions that torch and Pyro lack, and exact arithmetic on intervals."""
