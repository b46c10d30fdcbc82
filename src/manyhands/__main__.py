"""``python -m manyhands``: the same as the ``manyhands`` command."""

import sys

from manyhands.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
