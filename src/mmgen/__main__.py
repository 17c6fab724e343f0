"""`python -m mmgen` is the command line too."""

import sys

from mmgen.cli import main

if __name__ == "__main__":
    sys.exit(main())
