"""Markov chains over the latents of one pair, and how well they mix."""
