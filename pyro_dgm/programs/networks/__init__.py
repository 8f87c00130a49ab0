"""Networks that act on the rightmost dims and broadcast over all others."""
