"""`python -m discovla`: needs no installation when started from the repository's root."""

import sys

from discovla.cli import main
from discovla.interruption import done

code = main()
if code == 0:
    done()  # the interpreter takes a second to end
sys.exit(code)
