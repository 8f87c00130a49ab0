"""What a file and flags say: reading, sugar, trust, and the parts that they build."""
