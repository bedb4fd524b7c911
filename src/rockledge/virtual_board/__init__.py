"""A board that is not there: its heat, its clocks and its sysfs, for developers and tests."""
