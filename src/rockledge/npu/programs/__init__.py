"""What the NPU runs: a matmul cut into tiles, as register programs, and the time they take."""
