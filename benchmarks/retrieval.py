"""Compare FAISS with the exact search over made-up voices; print a table.

The voices are unit vectors, ten a speaker, and the speakers are in twelve groups, as of sex and age
decade: two voices of one speaker have a cosine of about 0.7, two of one group 0.5, others 0. A
query is one more voice of some speaker.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from voice2face.models.nearest_search import ExactSearch, FaissSearch, Search

GROUPS = 12
VOICES_PER_SPEAKER = 10
COSINE_IN_GROUP, COSINE_OF_SPEAKER = 0.5, 0.7
QUERIES_TIMED_ALONE = 50
NEIGHBOURS = 10

Returned = TypeVar("Returned")


class Figures(NamedTuple):
    """What one kind of search took and found.

    Attributes:
        build_seconds: making the index.
        alone_seconds: of a query by itself, the median.
        together_seconds: of a query among all of them, the mean.
        recall_at_1: share of the queries whose nearest entry came first.
        recall_at_10: share of the ten nearest entries that were among the ten found.
        vector_bytes: of the vectors in memory.
    """

    build_seconds: float
    alone_seconds: float
    together_seconds: float
    recall_at_1: float
    recall_at_10: float
    vector_bytes: int


def made_up_voices(entries: int, queries: int, dim: int) -> tuple[Tensor, Tensor]:
    """Voices to search, ``(entries, dim)``, and to search with, ``(queries, dim)``."""
    generator = torch.Generator().manual_seed(0)

    def directions(count: int, part: float) -> Tensor:
        drawn = torch.randn(count, dim, generator=generator)
        return drawn.mul_((part / dim) ** 0.5)

    def members(of: Tensor, count: int) -> Tensor:
        return of[torch.randint(len(of), (count,), generator=generator)]

    count = max(1, entries // VOICES_PER_SPEAKER)
    groups = directions(GROUPS, COSINE_IN_GROUP)
    speakers = directions(count, COSINE_OF_SPEAKER - COSINE_IN_GROUP).add_(members(groups, count))
    searched, asked = (
        F.normalize(directions(count, 1 - COSINE_OF_SPEAKER).add_(members(speakers, count)), dim=1)
        for count in (entries, queries)
    )
    return searched, asked


def timed(call: Callable[[], Returned]) -> tuple[float, Returned]:
    """Wall-clock seconds of a call, and what it returned."""
    began = time.perf_counter()
    returned = call()
    return time.perf_counter() - began, returned


def vector_bytes(search: Search) -> int:
    """Memory of the vectors that a search holds."""
    if isinstance(search, FaissSearch):
        return search.index.ntotal * search.index.code_size
    return search.speech.nbytes


def compare(entries: int, dim: int, queries: int) -> tuple[Figures, Figures]:
    """Figures of the exact search and of FAISS, over the same voices."""
    speech, asked = made_up_voices(entries, queries, dim)
    figures, nearest = [], None
    for kind in (ExactSearch, FaissSearch):
        build, search = timed(lambda kind=kind: kind(speech))
        alone = [
            timed(lambda one=one, search=search: search(one, NEIGHBOURS))[0]
            for one in asked[:QUERIES_TIMED_ALONE].split(1)
        ]
        together, (_, rows) = timed(lambda search=search: search(asked, NEIGHBOURS))
        nearest = rows if nearest is None else nearest
        among = (rows[:, :, None] == nearest[:, None, :]).any(1)
        figures.append(
            Figures(
                build,
                median(alone),
                together / queries,
                (rows[:, 0] == nearest[:, 0]).double().mean().item(),
                among.double().mean().item(),
                vector_bytes(search),
            )
        )
    return figures[0], figures[1]


def table(exact: Figures, faiss: Figures) -> str:
    """Both side by side, as Markdown."""
    rows = [
        ("building the index, s", 1, "build_seconds"),
        ("a query alone, ms", 1e3, "alone_seconds"),
        ("a query among all of them, ms", 1e3, "together_seconds"),
        ("recall@1", 1, "recall_at_1"),
        ("recall@10", 1, "recall_at_10"),
        ("vectors in memory, MB", 1e-6, "vector_bytes"),
    ]
    lines = ["| what | exact | FAISS | FAISS / exact |", "|---|---:|---:|---:|"]
    for name, unit, field in rows:
        one, other = (getattr(figures, field) * unit for figures in (exact, faiss))
        ratio = f"{other / one:.2f}" if one >= 0.001 else "-"  # the exact search builds nothing
        lines.append(f"| {name} | {one:.3f} | {other:.3f} | {ratio} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    add = parser.add_argument
    add("--entries", type=int, default=1_000_000, help="voices to search (default: %(default)s)")
    add("--dim", type=int, default=256, help="length of an embedding (default: %(default)s)")
    add("--queries", type=int, default=1_000, help="voices to search with (default: %(default)s)")
    options = parser.parse_args(arguments)
    exact, faiss = compare(options.entries, options.dim, options.queries)
    print(
        f"{options.entries:,} entries of {options.dim} numbers, {options.queries:,} queries, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    print(table(exact, faiss))


if __name__ == "__main__":
    main()
