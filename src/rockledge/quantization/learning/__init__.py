"""The quantised model in PyTorch, such that its codes and scales learn: what is trained is what is stored."""
