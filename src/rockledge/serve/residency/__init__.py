"""Which models are in memory: loaded when they are asked for, unloaded for others."""
