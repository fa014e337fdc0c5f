"""Records of a search: the candidates that were measured and the choice."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lockforge.records._base import Count, Digest, Record, Share
from lockforge.records.cells import Architecture, Cell


class Candidate(Record):
    """A cell of the short list and what it was judged by. Rank 0 is best; `rank_gap` = target_rank
    - weight * source_rank.

    `auxiliary_accuracy` is counted from chance (0) to all right (1), over all auxiliary sets by the
    recipe's `search.over`.
    """

    cell: Cell
    source_rank: Count
    target_rank: Count | None
    rank_gap: float
    judged_by: tuple[str, ...]
    source_accuracy: Share | None = None
    auxiliary_accuracy: Share | None = None


class SearchResult(Record):
    """What the search chose, what it would have chosen without the lock, and what each choice was
    allowed to know.
    """

    scheme: Literal["S", "TU", "TK"]
    chosen: Architecture
    reference: Architecture
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    questions: Count
    predictor: Digest
    source_cosines: tuple[float, ...]
    used: tuple[str, ...]

    @model_validator(mode="after")
    def _chosen_is_a_candidate(self) -> Self:
        cells = {candidate.cell for candidate in self.candidates}
        for name in ("chosen", "reference"):
            if getattr(self, name).cell not in cells:
                raise ValueError(f"the {name} cell is not among the candidates")
        return self
