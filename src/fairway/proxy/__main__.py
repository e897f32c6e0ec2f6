"""``python -m fairway.proxy``: one worker of the door as a process."""

from __future__ import annotations

import gc
import os
import sys


def main() -> int:
    """Run a worker; return its exit status."""
    gc.disable()  # what is imported now stays; `Door.serve` turns it on again
    if sys.argv[1:] == ["--await"]:
        # Started without anything between (`fairway.run.spare`): what a child must not keep of its parent goes here.
        os.chdir("/")
        os.closerange(3, 1 << 16)
    from fairway.lean import import_without

    import_without("msgspec", "typing_extensions")  # which offers what `typing` has
    from fairway.proxy.commandline import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
