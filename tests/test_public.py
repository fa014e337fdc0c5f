"""The public surface: complete, and every name resolves."""

import pytest

import lockforge


@pytest.mark.parametrize("name", lockforge.__all__)
def test_a_public_name_resolves(name: str) -> None:
    """What `__all__` promises is there."""
    assert getattr(lockforge, name) is not None


def test_all_is_complete_and_unknown_names_are_refused() -> None:
    """Everything loaded on first use is listed, and a typo is an AttributeError that lists the
    names.
    """
    assert set(lockforge._WHERE) <= set(lockforge.__all__)
    with pytest.raises(AttributeError, match="protect"):
        lockforge.protekt  # noqa: B018
