"""`python -m pddnet`: the command line."""

from pddnet.cli import run

if __name__ == "__main__":
    run()
