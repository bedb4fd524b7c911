"""The page at `/`: a chat, live plots, what is known of the model, and how programs use the server."""
