"""`python -m lockforge` is the command `lockforge`."""

from lockforge.cli import main

if __name__ == "__main__":
    main()
