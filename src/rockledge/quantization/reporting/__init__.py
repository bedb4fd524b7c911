"""What compression cost, measured and told."""
