"""Is the guide the posterior? Calibration, inference gaps, ground truth."""
