"""Number formats: codes, tables, packing, activation planes; the NumPy specification of the integer core."""
