"""How a server answers many clients: ours beside llama.cpp's, over HTTP only (`python -m bench.serving`)."""
