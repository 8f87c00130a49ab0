"""Sums over the values of discrete sites, exactly: what `infer={"enumerate": "parallel"}` asks for."""
