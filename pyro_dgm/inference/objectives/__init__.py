"""What training minimizes: bounds on the log-likelihood and their gradients."""
