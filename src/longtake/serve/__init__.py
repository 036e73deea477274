"""The HTTP server: live takes that are watched and directed from a browser, and an OpenAI-compatible video API."""
