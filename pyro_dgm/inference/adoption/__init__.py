"""What a user's program needs to be one of ours: a module that holds its networks, a data plate by its name."""
