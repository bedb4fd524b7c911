"""Checkpoint to artifact: calibrate, rotate, price, allocate, round, report. Needs the `quantize` extra."""
