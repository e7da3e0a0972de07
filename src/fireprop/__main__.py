"""`python -m fireprop`, which is also what torchrun starts."""

import os
import sys

from fireprop.cli import main

try:
    main()
except SystemExit as end:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # Gloo's threads outlive the process group, and now and then abort a process that has done its work while Python
        # takes itself down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 0)
    raise
