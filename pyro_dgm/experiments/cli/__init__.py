"""The command line: the verbs, from flags."""
