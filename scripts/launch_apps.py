#!/usr/bin/env python3
"""Builds, starts and serves every app of compose/app-registry: what `fairway up` does, arguments included."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from fairway.cli.main import main

main(["up", *sys.argv[1:]])
