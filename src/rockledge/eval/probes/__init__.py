"""Logic probes: small questions made by rules, so that compression's effect on reasoning can be counted."""
