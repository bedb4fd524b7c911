"""A virtual NPU for another process: the emulator behind the interface of both kernel drivers, with faults on request."""
