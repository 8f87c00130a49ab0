"""How a pair of programs is run: data in, one session, traces and particles out."""
