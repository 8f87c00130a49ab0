"""Ready experiments, one YAML file each, and the programs of those that bring their own."""
