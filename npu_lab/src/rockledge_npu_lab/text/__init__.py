"""What people read: a stream with its fields and findings, and the page of all registers."""
