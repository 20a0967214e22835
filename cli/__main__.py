"""`python -m naign_cli` is `naign`."""

from naign_cli.main import run

if __name__ == "__main__":
    run()
