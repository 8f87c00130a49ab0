"""Programs that know nothing of any library but Pyro."""
