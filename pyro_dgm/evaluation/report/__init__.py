"""One page on a fitted pair: every check with its threshold, reason and advice."""
