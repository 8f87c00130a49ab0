"""Whole runs: data, the command line, figures. The only place that sees both wings."""
