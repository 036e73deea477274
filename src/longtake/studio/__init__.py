"""Takes that are directed while they are made: cues, rewinds, branches, scripts."""
