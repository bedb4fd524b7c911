"""Running an artifact: the program, the key/value cache, sampling, and the engine that drives them."""
