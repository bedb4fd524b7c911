"""A core of the NPU in NumPy: it executes command words over memory, and refuses what hardware would."""
