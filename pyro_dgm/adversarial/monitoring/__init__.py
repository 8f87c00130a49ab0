"""Is a game going well? What is measured of it, where a limit is, and what to do when it is passed."""
