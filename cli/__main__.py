"""``python -m cli``: the same as ``compress``, for launchers that start modules."""

from cli.main import run

if __name__ == "__main__":
    run()
