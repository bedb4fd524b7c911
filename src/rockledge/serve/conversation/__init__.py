"""Conversations: prompts from messages and tools, and answers read back as thoughts, text and calls."""
