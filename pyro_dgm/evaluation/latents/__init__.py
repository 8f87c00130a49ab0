"""What do the latents hold? ELBO surgery, active units, traversals."""
