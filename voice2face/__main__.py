"""``python -m voice2face``: the command line."""

import sys

from voice2face.cli import main

sys.exit(main())
