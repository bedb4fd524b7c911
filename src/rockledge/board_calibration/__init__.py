"""What a machine's own constants are: measured with kernels, and an engine that hardly computes."""
