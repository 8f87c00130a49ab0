"""What is known of a fitted pair: likelihood, guide quality, draws."""
