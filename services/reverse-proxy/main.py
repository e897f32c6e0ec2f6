"""The door alone: `python main.py [CONFIG]`, config.yaml beside this file by default."""

import sys
from pathlib import Path

import msgspec

from fairway.cli import exits
from fairway.proxy.options import DoorOptions
from fairway.proxy.routes import RouteTable
from fairway.proxy.serve import Door


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """What config.yaml holds."""

    routes: RouteTable
    door: DoorOptions = DoorOptions()


def main(path: Path) -> int:
    """Serve; errors are one sentence on stderr."""
    try:
        return Door((config := msgspec.yaml.decode(path.read_bytes(), type=Config)).door, config.routes).run()
    except BaseException as error:
        return exits.report(error)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("config.yaml")))
