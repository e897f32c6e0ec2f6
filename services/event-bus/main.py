"""The event bus alone: `python main.py --config config.yaml`."""

from fairway.cli import exits
from fairway.cli.serve_events import event_bus


def main() -> int:
    """Run the command; errors are one sentence on stderr."""
    try:
        event_bus.main(standalone_mode=False)
    except BaseException as error:
        return exits.report(error)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
