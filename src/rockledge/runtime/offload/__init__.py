"""Prefill on the NPU: what goes there, how it is cut, where it lies, when it pays, and loading it all."""
