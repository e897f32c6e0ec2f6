#!/usr/bin/env python3
"""Writes the NGINX configuration of compose/app-registry: what `fairway nginx generate` does, arguments included."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from fairway.cli.main import main

main(["nginx", "generate", *sys.argv[1:]])
