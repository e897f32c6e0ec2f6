"""``python -m fairway``: the command line without its script."""

from fairway.cli.entry import main

if __name__ == "__main__":
    main()
