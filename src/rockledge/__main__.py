"""`python -m rockledge` is the `rockledge` command."""

import sys

from rockledge.cli.main import main

sys.exit(main())
