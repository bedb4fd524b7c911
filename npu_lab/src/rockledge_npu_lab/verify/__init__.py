"""Programs put to the test on the emulator: cases of open generators, and whole launches of our own."""
