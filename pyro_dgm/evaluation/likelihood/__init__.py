"""How likely are the data? Importance sampling, annealing, total mass, kernels."""
