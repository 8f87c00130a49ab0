"""How a pair is trained: the loop, the compiled step, averages, checkpoints."""
