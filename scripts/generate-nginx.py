#!/usr/bin/env python3
"""Writes the NGINX configuration of compose/app-registry: what `fairway nginx generate` does, arguments included."""

import os
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
own = root / ".venv" / "bin" / "python"
if own.exists() and Path(sys.prefix) != root / ".venv":
    os.execv(own, [str(own), __file__, *sys.argv[1:]])
from fairway.cli.main import main

main(["nginx", "generate", *sys.argv[1:]])
