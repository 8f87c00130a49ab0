"""What is done with any pair of Pyro programs: preflight, particles, objectives, training."""
