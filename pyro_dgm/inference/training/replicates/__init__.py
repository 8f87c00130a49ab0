"""Several runs that differ in their seed alone: one graph, one update, one step for all of them."""
