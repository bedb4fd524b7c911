"""A virtual NPU for another process: the emulator behind both drivers' system calls, with faults if asked."""
