"""Takes, cues, branches and scripts."""
