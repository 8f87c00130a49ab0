"""A step without Python: loss and gradient as one graph, the update as one call."""
