"""Sockets, HTTP and pages."""
