"""Likelihood-free learning: the same generator program, trained against a critic."""
