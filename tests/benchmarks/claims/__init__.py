"""Claims with their evidence: rows, and the page that is made of them."""
