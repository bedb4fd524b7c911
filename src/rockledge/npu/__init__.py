"""The RK3588 NPU without a board: its register programs, what they do, and how fast they would be."""
