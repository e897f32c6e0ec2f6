"""Where the `fairway` command begins: what can be on its way is started, then the command line is loaded.

A daemon whose arguments are plain does without that (`fairway.cli.plain`).
"""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line and end the process with its exit status."""
    if "up" in sys.argv:
        from fairway.cli import ahead

        if ahead.means_a_daemon(sys.argv[1:]):
            gc.disable()  # what is imported now stays; the daemon turns it on again once the apps are up
            gc.set_threshold(20_000, 20, 50)  # as in `fairway.cli.main`
            ahead.begin(sys.argv[1:])
            import signal

            # Until the daemon holds it (`fairway.cli.foreground`), Ctrl-C ends this process by its signal: an import
            # that it is raised in may be left half done, and msgspec crashes the process at its first use then.
            raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
            if raises:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            from fairway.lean import import_without

            import_without("msgspec", "typing_extensions")  # which imports `inspect`, and offers what `typing` has
            from fairway.cli import plain

            status = plain.run(sys.argv[1:])
            if status is not None:
                sys.exit(status)
            if raises:
                signal.signal(signal.SIGINT, signal.default_int_handler)
    from fairway.cli.main import main as run

    run()
