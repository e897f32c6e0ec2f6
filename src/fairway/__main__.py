"""``python -m fairway``: the command line without its script."""

from fairway.cli.main import main

if __name__ == "__main__":
    main()
