"""`python -m kconv` is `kconv`."""

import sys

from kconv.cli import main

sys.exit(main())
