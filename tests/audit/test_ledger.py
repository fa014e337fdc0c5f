"""What a killed audit leaves behind is trusted as far as it is whole, and no further."""

from pathlib import Path

import pytest

from lockforge.audit.ledger import NAME, Ledger
from lockforge.audit.protocol import Item
from lockforge.records import AttackPoint


def entry(seed: int) -> tuple[Item, tuple[AttackPoint, ...]]:
    """An item with two points, one of them tested; the accuracies need all their digits."""
    first = AttackPoint(
        start="release",
        attacker="a",
        setting="one",
        images_per_class=2,
        samples=4,
        seed=seed,
        steps=3,
        flops=1e9,
        val_accuracy=1 / 3,
    )
    other = first.model_copy(
        update={"setting": "two", "val_accuracy": 0.1 + 0.2, "test_accuracy": 2 / 3}
    )
    return Item("release", "a", seed), (first, other)


def test_what_was_added_is_found_again_exactly(tmp_path: Path) -> None:
    """Round trip, to the last digit."""
    ledger = Ledger(tmp_path)
    for seed in range(3):
        ledger.add(*entry(seed))
    assert Ledger(tmp_path).finished == dict(entry(seed) for seed in range(3)) == ledger.finished


def test_a_kill_at_any_byte_loses_the_running_item_only(tmp_path: Path) -> None:
    """Exhaustive: the last line cut short at every length; what comes after is added cleanly."""
    ledger = Ledger(tmp_path)
    ledger.add(*entry(0))
    start = (tmp_path / NAME).stat().st_size
    ledger.add(*entry(1))
    whole = (tmp_path / NAME).read_bytes()
    for length in range(start, len(whole)):
        (tmp_path / NAME).write_bytes(whole[:length])
        resumed = Ledger(tmp_path)
        assert resumed.finished == dict([entry(0)])
        assert (tmp_path / NAME).stat().st_size == start
    resumed.add(*entry(1))
    assert (tmp_path / NAME).read_bytes() == whole


@pytest.mark.parametrize("position", [3, 30, 200])
def test_a_changed_line_and_all_after_it_are_cut_off(tmp_path: Path, position: int) -> None:
    """A disk that returns other bytes than were written is not believed."""
    ledger = Ledger(tmp_path)
    ledger.add(*entry(0))
    start = (tmp_path / NAME).stat().st_size
    ledger.add(*entry(1))
    ledger.add(*entry(2))
    data = bytearray((tmp_path / NAME).read_bytes())
    data[start + position] ^= 1
    (tmp_path / NAME).write_bytes(data)
    assert Ledger(tmp_path).finished == dict([entry(0)])


def test_an_empty_folder_has_finished_nothing(tmp_path: Path) -> None:
    """The first start of an audit."""
    assert Ledger(tmp_path).finished == {}
