"""The same function in a basis that rounds better: folds, rotations, balance, and the order of channels."""
