"""`python -m paperlib`: the command line, also where the console script is not on the path."""

import sys

from paperlib.cli import main

if __name__ == "__main__":
    sys.exit(main())
