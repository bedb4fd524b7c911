"""HTTP itself: connections, bodies and logs within bounds."""
