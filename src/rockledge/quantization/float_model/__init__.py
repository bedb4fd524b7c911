"""The float model: what all errors and prices are measured against."""
