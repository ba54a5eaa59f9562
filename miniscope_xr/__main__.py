"""``python -m miniscope_xr`` is the command ``miniscope-xr``."""

import sys

from miniscope_xr.tools.cli import main

sys.exit(main())
