"""`python -m pddnet`: the command line."""

import sys

from pddnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
