"""What every linear sees, and how much its outputs matter: texts, sequences, statistics."""
