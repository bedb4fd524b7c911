"""From prices to widths within a budget, and to an artifact."""
