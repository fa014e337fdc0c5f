"""What the search finds in the published tables: every row, every source, ten seeds; one line a space. Needs the shared tables.

python -m tests.benchmarks.tables SPACE [--measurements N] [--rows S,TK] [--seeds 10] [--save]
"""

import argparse
import json
from datetime import UTC, datetime

import torch

from lockforge.benchmark.rows import ROWS, Plan, read_table, run_rows, summary
from tests.benchmarks.line import FOLDER
from tests.conftest import SHARED

FILES = {"nasbench201": ("nasbench201.csv.gz", 0.99, 98.0), "transnas101": ("transnasbench101_micro.csv.gz", 0.99, 97.0)}


def main() -> None:
    """Run the rows, print the summary line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", choices=FILES)
    parser.add_argument("--measurements", type=int, default=100)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    name, good_enough, least = FILES[given.space]
    table = read_table(SHARED / "nas" / name, given.space)
    plan = Plan(given.measurements, given.seeds, good_enough, least)
    found = run_rows(table, given.rows.split(","), plan, 0, tick=lambda done, total, note: print(f"{done}/{total} {note}", flush=True))
    rows = [
        {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        | {"source_percentiles": [round(v, 2) for line, _ in found if line.row == row["row"] and row["source"] in {line.source, "all"}
                                  for v in line.source_percentile],
           "target_percentiles": [round(v, 2) for line, _ in found if line.row == row["row"] and row["source"] in {line.source, "all"}
                                  for v in line.target_percentile]}
        for row in summary(found, 0)
    ]  # fmt: skip
    line = {"bench": "tables", "date": datetime.now(UTC).date().isoformat(), "space": given.space, "plan": plan.__dict__, "rows": rows}
    for row in rows:
        words = ("source_percentile", "target_percentile", "matched", "gain", "p", "floor_at_least", "regret")
        print(f"{row['row']:<11}{row['source']:<15}", *(f"{word} {row[word]:.3f}" for word in words))
    if given.save:
        with (FOLDER / "tables.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
