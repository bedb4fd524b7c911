"""What a model would be like on a board before anybody has either: memory, speed, and what to do."""
