"""What a sample statement is: its kind, its support, and what its density measures."""
