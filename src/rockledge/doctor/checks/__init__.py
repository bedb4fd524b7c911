"""The checks, one a file; `linear_table` and `case_table` register them."""
