"""``python -m fastconv``: the command line without its script."""

import sys

from fastconv.cli import main

sys.exit(main())
