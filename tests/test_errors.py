"""The error tree: messages that help, one exit code a branch."""

from lockforge import errors


def branches() -> list[type[errors.LockForgeError]]:
    """Every class below the root."""
    return errors.LockForgeError.__subclasses__()


def test_every_branch_has_its_own_exit_code_and_the_tree_in_the_docstring_says_it() -> None:
    """Exit codes are distinct, none is 0 or the bug code, and the drawing cannot drift from the
    code.
    """
    codes = {branch.exit_code for branch in branches()}
    assert len(codes) == len(branches())
    assert codes.isdisjoint({0, errors.BUG})
    for branch in branches():
        line = next(line for line in (errors.__doc__ or "").splitlines() if branch.__name__ in line)
        assert line.split(branch.__name__)[1].split()[0] == str(branch.exit_code)


def test_a_message_shows_its_faults_and_its_way_out() -> None:
    """What a terminal prints has the sentence first, one line a fault, the hint last."""
    error = errors.DataError(
        "two files cannot be read",
        hint="remove them",
        faults=("a.png: cut short", "b.png: no image"),
    )
    assert str(error).splitlines() == [
        "two files cannot be read",
        "  - a.png: cut short",
        "  - b.png: no image",
        "hint: remove them",
    ]
