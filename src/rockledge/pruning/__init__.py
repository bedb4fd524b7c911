"""A smaller checkpoint out of a larger one: layers, heads and channels that matter least are left out."""
