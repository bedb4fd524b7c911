"""Anthropic's Messages API: its bodies and its answers."""
