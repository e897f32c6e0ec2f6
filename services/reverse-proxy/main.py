"""The door alone: `python main.py [CONFIG]`, config.yaml beside this file by default."""

import sys
from pathlib import Path

from fairway.cli import exits
from fairway.cli.serve_proxy import read_config
from fairway.proxy.serve import Door


def main(path: Path) -> int:
    """Serve; errors are one sentence on stderr."""
    try:
        return Door(*read_config(path)).run()
    except BaseException as error:
        return exits.report(error)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("config.yaml")))
