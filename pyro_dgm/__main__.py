"""`python -m pyro_dgm` is the command `pyro-dgm`."""

from .experiments.cli.command_line import main

if __name__ == "__main__":
    main()
