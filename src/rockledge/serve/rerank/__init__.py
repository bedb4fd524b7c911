"""Reranking, as Cohere, Jina and vLLM have it."""
