"""What one does with experiments: a public function each."""
