"""Flows: bijectors, their stacks, and the conditional that turns them into distributions."""
