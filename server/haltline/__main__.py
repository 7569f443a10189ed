"""`python -m haltline`: the same as the `haltline` command."""

import sys

from haltline.cli import main

sys.exit(main())
