"""What an RK3588 board is and what it can hold and how fast: data and formulas, plain numbers in and out."""
