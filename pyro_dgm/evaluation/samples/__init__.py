"""Are the samples like the data? Two-sample tests, distances, coverage."""
