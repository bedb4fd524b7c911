"""The `rockledge` command: one file a command, it wires the other parts and holds no logic."""
