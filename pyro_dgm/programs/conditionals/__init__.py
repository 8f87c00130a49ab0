"""Distributions that depend on a context: priors, encoders, and what turns a network into one."""
