"""What a run keeps while it works: finished stages on disk, and slices that fit the memory."""
