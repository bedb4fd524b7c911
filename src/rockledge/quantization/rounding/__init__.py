"""Every linear at every width, and what that costs."""
