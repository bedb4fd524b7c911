"""From a checkpoint to an artifact at once: from the weights alone, by NumPy and the native core, without
PyTorch."""
