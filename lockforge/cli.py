"""Arguments in, one call, one answer out."""


def main() -> None:
    """The command `lockforge`."""
