"""What is wrong with an artifact: the same prompts through float model, specification, CPU and NPU."""
