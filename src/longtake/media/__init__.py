"""Reading and writing of picture, video and audio files; no other package handles media formats."""
