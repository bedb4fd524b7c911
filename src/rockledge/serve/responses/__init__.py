"""OpenAI's Responses API, the part of it that stores nothing."""
