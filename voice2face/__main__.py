"""The command ``voice2face``, also ``python -m voice2face``: the command line."""

import sys


def main() -> int:
    """Run the command line, whose imports Ctrl-C may end as well, and return its exit code."""
    try:
        from voice2face.cli import main as run
    except KeyboardInterrupt:
        from voice2face.commands.ending_signals import interrupted

        return interrupted()
    return run()


if __name__ == "__main__":
    sys.exit(main())
