"""`python -m pyro_dgm` is the command `pyro-dgm`."""

from .experiments.cli.main import main

if __name__ == "__main__":
    main()
