"""`python -m longtake` is the `longtake` command."""

import sys

from longtake.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
