"""OpenAI's API: its bodies and its answers."""
