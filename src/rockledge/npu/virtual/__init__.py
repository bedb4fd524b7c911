"""A virtual NPU for another process: the emulator behind both kernel drivers, with faults on request."""
