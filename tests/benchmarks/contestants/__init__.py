"""One file per library and family: each declares every model once, and takes its training step as its users do."""
