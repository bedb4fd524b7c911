"""What the NPU is told to run: a matmul cut into tiles, as register programs, and what they cost in time."""
