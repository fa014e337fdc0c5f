"""`lockforge benchmark` as a person meets it: images for the rows that need them, images, and
faults all at once.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lockforge.cli import _console as show
from lockforge.cli import _task_images as task_images
from lockforge.randomness import numpy_generator
from lockforge.spaces import all_cells
from lockforge.spaces.codecs import spell

Run = Callable[..., tuple[int, str, str]]
TABLE = ("benchmark", "transnas101", "--table", "table.csv")


@pytest.fixture
def run(outputs: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("benchmark", ...)` beside a table of two tasks gives the exit code and both outputs.
    Embeddings are small ones, to be quick.
    """
    (tmp_path / "small.yaml").write_text("threads: 1\nembed:\n  samples: 8\n  head_steps: 2\n")
    monkeypatch.setattr(task_images, "RECIPE", "small.yaml")
    cells = all_cells("transnas101")
    values = numpy_generator(0, "table").uniform(10, 90, size=(len(cells), 2)).round(3)
    with (tmp_path / "table.csv").open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(("arch_str", "scene_val_final", "object_val_final"))
        rows.writerows(
            (spell(cell, "transnas101"), *row) for cell, row in zip(cells, values, strict=True)
        )
    return outputs


def test_images_bring_the_rows_that_need_them(run: Run, tmp_path: Path) -> None:
    """One task has images: S runs for it and is told to be missing for the other, TK for both; a
    set of another name stands in.
    """
    arguments = (
        "--row",
        "paper S",
        "--row",
        "paper TK",
        "--seeds",
        "1",
        "--images",
        "scene=digits:0-4",
        "--figures",
        "drawn",
    )
    code, out, err = run(*TABLE, *arguments, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert (
        answer["images"]["scene"] | {"set": "digits:0-4", "stands_in": True}
        == answer["images"]["scene"]
    )
    assert [(line["row"], line["source"]) for line in answer["rows"]] == [("paper S", "scene")]
    assert [
        (one["row"], one["source"], one["no_images_of"], one["why"]) for one in answer["not_run"]
    ] == [
        ("paper S", "object", ["object"], "not run: no images"),
        ("paper TK", "scene", ["object"], "not run: no images"),
        ("paper TK", "object", ["object"], "not run: no images"),
    ]
    assert {Path(name).name for name in answer["figures"]} == {
        "heatmap-paper.svg",
        "heatmap-paper.json",
    }
    assert all((tmp_path / name).is_file() for name in answer["figures"])

    code, out, err = run(*TABLE, *arguments)
    assert code == 0
    assert "STANDS IN: images of digits:0-4 for those of scene" in out
    assert "STANDS IN" in (tmp_path / "drawn" / "heatmap-paper.svg").read_text()
    assert out.count("not run: no images") == 2
    assert "found done" in err  # the embedding was made once


def test_without_images_the_rows_are_in_the_table_all_the_same(run: Run) -> None:
    """Not run, in the table and in the JSON; nothing is embedded, no runs folder is made."""
    code, out, _ = run(*TABLE, "--row", "proxies", "--row", "paper+oracle")
    assert code == 0
    assert out.count("not run: no images") == 4
    assert not Path("runs").exists()
    code, out, _ = run(*TABLE, "--row", "proxies", "--json")
    assert {one["source"] for one in json.loads(out)["not_run"]} == {"scene", "object"}


def test_what_was_left_out_is_told_by_row_source_or_pair() -> None:
    """Nothing of a row: one line. Some of it: the source without images, or the pair whose target
    has none.
    """
    absent = [
        ("TU", "a", "a"),
        ("TK", "a", "c"),
        ("TK", "c", "c"),
        ("TK", "c", "c"),
        ("S", "a", "a"),
        ("S", "b", "b"),
    ]
    not_run = [
        {"row": row, "source": source, "no_images_of": [task], "why": "none"}
        for row, source, task in absent
    ]
    shown = show._left_out({"summary": [{"row": "TU"}, {"row": "TK"}], "not_run": not_run})
    assert shown == [
        ("TU", "a", "none"),
        ("TK", "a > c", "none"),
        ("TK", "c", "none"),
        ("S", "all", "none"),
    ]


def test_every_fault_of_images_is_told_at_once(run: Run) -> None:
    """A task the table has not, one given twice, no TASK=PLACE and a missing place: exit 2, nothing
    embedded.
    """
    given = (
        "jigsaw=digits",
        "scene=digits:0-4",
        "scene=digits:5-9",
        "digits",
        "object=nowhere.npz",
    )
    code, _, err = run(
        *TABLE, "--row", "S", *(word for text in given for word in ("--images", text))
    )
    assert code == 2
    told = " ".join(err.split())
    assert all(
        words in told
        for words in (
            "no task 'jigsaw'",
            "'scene' is given 2 times",
            "'digits' is no TASK=PLACE",
            "'nowhere.npz'",
        )
    )
    assert not Path("runs").exists()


def test_places_that_are_missing_or_unreadable_are_data_faults(run: Run) -> None:
    """Exit 3, both named; also when they are there and hold no images."""
    code, _, err = run(
        *TABLE, "--row", "S", "--images", "scene=nowhere.npz", "--images", "object=here.npz"
    )
    assert code == 3
    assert all(name in err for name in ("nowhere.npz", "here.npz"))
    for name in ("a.npz", "b.npz"):
        np.savez(name, x=np.zeros(3))
    code, _, err = run(*TABLE, "--row", "S", "--images", "scene=a.npz", "--images", "object=b.npz")
    assert code == 3
    assert all(name in err for name in ("a.npz", "b.npz"))


def test_figures_need_a_folder(run: Run) -> None:
    """A file of that name is refused before any work, and so is a row that does not exist."""
    assert run(*TABLE, "--figures", "table.csv")[0] == 4
    code, _, err = run(*TABLE, "--row", "papier", "--images", "scene=digits")
    assert code == 2
    assert "papier" in err
    assert not Path("runs").exists()
