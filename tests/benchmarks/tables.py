"""What the search finds in the published tables: every row, every source, ten seeds; one line a
space. Needs the shared tables.

python -m tests.benchmarks.tables SPACE [--measurements N] [--rows S,TK] [--seeds 10] [--runs DIR]
[--save]

Rows that need images get the shared ones (nasbench201; images of Tiny-ImageNet stand in for
ImageNet16-120, which is not there).
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import torch

from lockforge.benchmark.embedded import EMBEDDED
from lockforge.benchmark.rows import ROWS, Plan, jobs_of, not_run, read_table, run_rows, summary
from lockforge.cli._console import Terminal
from lockforge.cli._task_images import embed_given
from tests.benchmarks.line import FOLDER
from tests.conftest import SHARED

FILES = {
    "nasbench201": ("nasbench201.csv.gz", 0.985, 98.0),
    "transnas101": ("transnasbench101_micro.csv.gz", 0.985, 97.0),
}
IMAGES = {
    "nasbench201": {
        "cifar10": "cifar10.npz",
        "cifar100": "cifar100.npz",
        "imagenet16_120": "tinyimagenet16_120.npz",
    }
}


def main() -> None:
    """Run the rows, print the summary line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("space", choices=FILES)
    parser.add_argument("--measurements", type=int, default=100)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument(
        "--good-enough", type=float, help="share of the space to beat on the source"
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where embeddings are kept and found again"
    )
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    name, good_enough, least = FILES[given.space]
    table = read_table(SHARED / "nas" / name, given.space)
    plan = Plan(given.measurements, given.seeds, given.good_enough or good_enough, least)
    jobs = jobs_of(table, given.rows.split(","))
    wanted = any(row in EMBEDDED for row, *_ in jobs)
    places = {
        task: str(SHARED / "images" / file)
        for task, file in IMAGES.get(given.space, {}).items()
        if wanted
    }
    known, images = embed_given(places, given.space, given.runs, "cpu", Terminal("tables"))
    found = run_rows(
        table,
        given.rows.split(","),
        plan,
        0,
        known=known,
        tick=lambda done, total, note: print(f"{done}/{total} {note}", flush=True),
    )
    rows = [
        {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        | {
            "source_percentiles": [
                round(v, 2)
                for line, _ in found
                if line.row == row["row"] and row["source"] in {line.source, "all"}
                for v in line.source_percentile
            ],
            "target_percentiles": [
                round(v, 2)
                for line, _ in found
                if line.row == row["row"] and row["source"] in {line.source, "all"}
                for v in line.target_percentile
            ],
        }
        for row in summary(found, 0)
    ]
    line = {
        "bench": "tables",
        "date": datetime.now(UTC).date().isoformat(),
        "space": given.space,
        "plan": plan.__dict__,
        "rows": rows,
    }
    line |= (
        {
            "images": {
                task: {"set": of["set"], "stands_in": of["stands_in"]}
                for task, of in images.items()
            }
        }
        if images
        else {}
    )
    line |= {"not_run": absent} if (absent := not_run(jobs, known)) else {}
    for row in rows:
        words = (
            "source_percentile",
            "target_percentile",
            "matched",
            "gain",
            "p",
            "gain_alike",
            "floor_at_least",
            "regret",
        )
        print(
            f"{row['row']:<16}{row['source']:<15}", *(f"{word} {row[word]:.3f}" for word in words)
        )
    if given.save:
        with (FOLDER / "tables.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
