"""A trained model with a new part: prior, scale or guide fitted again, the rest frozen."""
