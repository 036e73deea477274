"""The rendered world, source of training data: scenes, their captions, their rendering, and clips on disk."""
