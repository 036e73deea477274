"""Whole training runs as typed Python: `longtake train --list` names them, `--copy NAME` copies one out."""
