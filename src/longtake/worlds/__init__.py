"""The rendered world: scenes, what one says of them, how they look, and clips on disk."""
