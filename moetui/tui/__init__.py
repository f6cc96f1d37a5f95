"""The explorer: a Textual app that knows the engine's Protocol and nothing of mlx."""
