"""Directing of takes while they are made: cues, rewinds, branches, scripts."""
