"""One file per library: each builds a RealNVP, a spline coupling flow, a MAF and an IAF of the same sizes."""
