"""Weights that do not fit into memory and are read from the disk in every step."""
