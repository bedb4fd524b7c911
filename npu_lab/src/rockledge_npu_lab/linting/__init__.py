"""What is suspicious in a command stream, rule by rule, without running it."""
