"""Sockets, HTTP and pages: takes that are watched and directed from a browser, and an API that clients speak."""
