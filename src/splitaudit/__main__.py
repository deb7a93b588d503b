"""`python -m splitaudit`: the same as the command `splitaudit`."""

from splitaudit.cli import main

if __name__ == "__main__":
    main()
