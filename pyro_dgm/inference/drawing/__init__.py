"""Draws from programs: data, latents, reconstructions, simulations."""
