"""The door alone: a reverse proxy told by config.yaml."""

import sys
from pathlib import Path

import msgspec
import yaml

from fairway.proxy.options import DoorOptions
from fairway.proxy.routes import RouteTable
from fairway.proxy.serve import Door


class Config(msgspec.Struct, forbid_unknown_fields=True):
    routes: RouteTable
    door: DoorOptions = DoorOptions()


def main() -> int:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("config.yaml")
    config = msgspec.convert(yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader), Config)
    return Door(config.door, config.routes).run()


if __name__ == "__main__":
    sys.exit(main())
