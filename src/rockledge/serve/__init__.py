"""HTTP APIs over one engine: OpenAI's chat completions, completions and models, and a health check."""
