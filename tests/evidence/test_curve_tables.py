"""Anybody's curves as a table: the figures are the closed form's and the audit's own, and each
impossible value is named with its place.
"""

import csv
import io
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockforge.errors import RecipeError
from lockforge.evidence.curve_tables import figures_of, read_table
from lockforge.evidence.curves import measure
from lockforge.verify import verify_curves
from tests.small_release import IMAGES, audit, images

COLUMNS = (
    "start",
    "attacker",
    "setting",
    "images_per_class",
    "samples",
    "seed",
    "val_accuracy",
    "test_accuracy",
)
FLAT = "start,attacker,samples,seed,val_accuracy,test_accuracy\n" + "".join(
    f"{start},a,{samples},{seed},{level},{level}\n"
    for start, level in (("release", 0.5), ("scratch_release", 0.5), ("reference", 0.75))
    for samples in (10, 100) for seed in (0, 1)
)  # fmt: skip


def write(path: Path, text: str) -> Path:
    """A table at a place."""
    path.write_text(text)
    return path


def faults(folder: Path, text: str) -> dict[str, str]:
    """The failing checks of a table."""
    found, figures = verify_curves(write(folder / "curves.csv", text))
    assert bool(figures) == found.passed
    return {check.name: check.value for check in found.checks if not check.passed}


def test_flat_curves_have_the_areas_of_rectangles(tmp_path: Path) -> None:
    """Accuracy .5 over ln 10; SLC-AUC 0 for the release and a quarter of ln 10 for the unlocked
    model; R is 1.
    """
    verdict, found = verify_curves(write(tmp_path / "flat.csv", FLAT))
    assert verdict.passed
    areas = {row["start"]: row["area"]["mean"] for row in found["curves"]}
    assert areas == {
        start: pytest.approx(y * math.log(10))
        for start, y in (("release", 0.5), ("scratch_release", 0.5), ("reference", 0.75))
    }
    slc = {row["start"]: row["slc_auc"]["mean"] for row in found["curves"] if "slc_auc" in row}
    assert slc == {"release": pytest.approx(0), "reference": pytest.approx(math.log(10) / 4)}
    assert found["removed_vs_reference"]["mean"] == pytest.approx(1)
    assert found["worth"]["mean"] == pytest.approx(0.25)


def test_an_audits_points_as_a_table_give_the_audits_figures(tmp_path: Path) -> None:
    """R with its interval and every SLC-AUC, by the same code on the same points."""
    audited = audit(images(2), "quick")
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for point in audited.points:
        writer.writerow(
            [getattr(point, name) if getattr(point, name) is not None else "" for name in COLUMNS]
        )
    table = read_table(write(tmp_path / "curves.csv", out.getvalue()))
    assert (table.unreadable, table.impossible, table.unlike) == ((), (), ())
    found, wanted = (
        figures_of(table.points),
        measure(audited.points, audited.same_as, test_samples=IMAGES),
    )
    assert found["removed_vs_reference"] == wanted.removed_vs_reference.model_dump()
    assert found["worth"] == wanted.worth.model_dump()
    slc = {
        (row["start"], row["attacker"]): row["slc_auc"]
        for row in found["curves"]
        if "slc_auc" in row
    }
    for row in wanted.slc:
        if row.start != "twin":
            assert slc[row.start, row.attacker] == row.area.model_dump()


HEAD = "start,attacker,setting,samples,seed,val_accuracy,test_accuracy,area\n"
GOOD = "release,a,x,10,0,.5,.5,\nrelease,a,x,100,0,.5,.5,\n"
WRONG = {
    "an accuracy above 1": (
        HEAD + GOOD.replace(".5,.5,\n", ".5,50,\n", 1),
        "points",
        ("line 2: test_accuracy 50 is not in [0, 1]"),
    ),
    "a negative one": (
        HEAD + GOOD.replace(".5,.5", "-.5,.5", 1),
        "points",
        ("line 2: val_accuracy -0.5 is not in [0, 1]"),
    ),
    "two grids": (
        HEAD + GOOD + "reference,a,x,10,0,.5,.5,\nreference,a,x,1000,0,.5,.5,\n",
        "points",
        "on different grids",
    ),
    "two sets of seeds": (
        HEAD + GOOD + "release,b,x,10,1,.5,.5,\nrelease,b,x,100,1,.5,.5,\n",
        "points",
        "on different grids or seeds",
    ),
    "one point": (HEAD + "release,a,x,10,0,.5,.5,\n", "points", "two or more values"),
    "a point twice": (HEAD + GOOD + "release,a,x,10,0,.6,.5,\n", "points", "is there 2 times"),
    "a choice on test": (
        HEAD + GOOD + "release,a,y,10,0,.4,.9,\n",
        "points",
        ("validation did not choose it: a selection made on test"),
    ),
    "chosen and not tested": (
        HEAD + GOOD.replace(".5,.5,", ".5,,", 1),
        "points",
        ("chosen by validation but has no test accuracy"),
    ),
    "an area above its maximum": (
        HEAD + GOOD.replace(",\n", ",7.013\n", 1),
        "areas",
        ("seed 0: 7.013 is beyond 2.30259, the most"),
    ),
    "another area": (
        HEAD + GOOD.replace(",\n", ",1.2\n", 1),
        "areas",
        ("1.2 stated, its points give 1.15129"),
    ),
    "an area that is none": (HEAD + GOOD.replace(",\n", ",large\n", 1), "areas", "is no number"),
    "no images": (HEAD + GOOD.replace(",10,", ",0,", 1), "table", "line 2: samples must be given"),
    "half an image": (
        HEAD + GOOD.replace(",10,", ",1.5,", 1),
        "table",
        ("line 2: samples '1.5' is no count"),
    ),
    "no number": (
        HEAD + GOOD.replace(",.5", ",nan", 1),
        "table",
        ("line 2: val_accuracy 'nan' is no number"),
    ),
    "an unknown start": (
        HEAD + GOOD.replace("release", "ours", 1),
        "table",
        ("line 2: start 'ours'"),
    ),
    "no columns": (
        "a,b\n1,2\n",
        "table",
        ("columns are missing: start, attacker, seed, val_accuracy, test_accuracy, samples or"),
    ),
    "no rows": (HEAD, "table", "there are no rows"),
    "nothing": ("", "table", "columns are missing"),
    "an open quote": (HEAD + '"release', "table", "is no table"),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_impossible_value_is_named_with_its_place(case: str, tmp_path: Path) -> None:
    """One fault, one check, in one line."""
    text, check, said = WRONG[case]
    found = faults(tmp_path, text)
    assert found.keys() == {check}
    assert said in found[check]
    assert "\n" not in found[check]


def test_images_per_class_will_do_and_all_needs_a_number(tmp_path: Path) -> None:
    """A factor common to all x changes no area; 0 (all) says nothing about how many."""
    per_class = FLAT.replace("samples", "images_per_class")
    _, by_class = verify_curves(write(tmp_path / "a.csv", per_class))
    _, by_samples = verify_curves(write(tmp_path / "b.csv", FLAT))
    assert by_class["curves"] == by_samples["curves"]
    assert "samples must be given" in faults(tmp_path, per_class.replace(",100,", ",0,"))["table"]


def test_no_file_is_the_command_lines_fault(tmp_path: Path) -> None:
    """Not the table's."""
    with pytest.raises(RecipeError):
        verify_curves(tmp_path / "none.csv")


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=60), cut=st.integers(0, len(FLAT)))
def test_no_bytes_give_a_traceback(data: bytes, cut: int, tmp_path: Path) -> None:
    """Noise, and a good table with noise in it: checks, never an exception."""
    for text in (data, FLAT[:cut].encode() + data + FLAT[cut:].encode()):
        (tmp_path / "noise.csv").write_bytes(text)
        verdict, figures = verify_curves(tmp_path / "noise.csv")
        assert bool(figures) == verdict.passed
