"""`python -m discovla`: needs no installation when started from the repository's root."""

import sys

from discovla.cli import main

sys.exit(main())
