"""One file for each decoder family, or group of nearly equal ones; `model.family` registers them."""
