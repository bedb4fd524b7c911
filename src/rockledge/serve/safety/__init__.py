"""Who may ask, and how: all that a request has to pass before a route sees it."""
