"""The front door: `longtake` on the command line. Nothing here imports torch before a command needs it."""
