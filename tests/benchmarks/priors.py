"""What the packaged files say of cells without a look at the source, beside published accuracies:
the predictor on its mean task (zero-cost proxies) and the meta-bench (short trainings on other
data). Needs the shared tables.

For every task of a table: Spearman of each one's order of all different networks with their
published accuracy, and where the best of the first twelve of that order stands, in percentiles of
the whole table. The best of them is the one that the owner's measurement would take: by 12-epoch
accuracy where the table has it, else by the final one.
"""

import numpy as np
from scipy.stats import spearmanr

from lockforge.benchmark.tables._published import percentiles, read_table
from lockforge.recipe import SearchRecipe
from lockforge.search.meta_bench import load_meta_bench
from lockforge.search.predictor import load_predictor
from lockforge.search.ranking import standing
from lockforge.spaces.isomorphism import different_networks
from tests.benchmarks.line import arguments, write_line
from tests.conftest import SHARED

FILES = {"nasbench201": "nasbench201.csv.gz", "transnas101": "transnasbench101_micro.csv.gz"}

FIRST = 12


def compare(space: str, panel_size: int) -> dict[str, dict[str, dict[str, float]]]:
    """Both priors of a space, by task."""
    table = read_table(SHARED / "nas" / FILES[space], space)
    cells = different_networks(space)
    place = {cell: at for at, cell in enumerate(table.cells)}
    rows = np.array([place[cell] for cell in cells])
    panel = [cells[at] for at in np.linspace(0, len(cells) - 1, panel_size).round().astype(int)]
    priors = {
        "predictor": standing(load_predictor(space), cells, panel, None),
        "meta_bench": load_meta_bench(space).good_in_general(cells),
    }
    found: dict[str, dict[str, dict[str, float]]] = {}
    for task in table.tasks:
        final = percentiles(table.final[task])[rows]
        seen = table.early.get(task, table.final[task])[rows]
        found[task] = {}
        for name, prior in priors.items():
            first = np.argsort(-prior, kind="stable")[:FIRST]
            best = first[np.argmax(seen[first])]
            order = float(spearmanr(prior, final).statistic)
            found[task][name] = {
                "spearman": round(order, 3),
                "best_of_first": round(float(final[best]), 1),
            }
    return found


def main() -> None:
    """Compare, print the table and the line."""
    given = arguments(__doc__, repeats=1)
    panel = SearchRecipe().panel
    found = {space: compare(space, panel) for space in FILES}
    for tasks in found.values():
        for task, priors in tasks.items():
            told = (
                f"{name}: Spearman {of['spearman']:6.3f}, best of first {of['best_of_first']:5.1f}"
                for name, of in priors.items()
            )
            print(f"{task:<16}", "   ".join(told))
    write_line("priors", given, {"first": FIRST, "panel": panel, "spaces": found})


if __name__ == "__main__":
    main()
