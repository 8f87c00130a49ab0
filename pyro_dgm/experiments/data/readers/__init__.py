"""Readers: what a file or a folder holds, as arrays of NumPy, before anything is chosen."""
