"""Runs that go on on other ranks than they began: what of a file each rank takes."""
