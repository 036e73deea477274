"""Pictures to files and back: the only floor that knows codecs, containers and picture formats."""
