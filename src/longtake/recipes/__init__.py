"""Recipes: whole training runs as typed Python; `longtake train --list` lists them, `--copy NAME` copies one."""
