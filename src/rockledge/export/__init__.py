"""Artifacts in the formats of other programs: one file for each target, registered in `targets`."""
