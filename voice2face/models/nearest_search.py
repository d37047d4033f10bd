"""Search for the unit vectors nearest to others by cosine: exact, or by FAISS."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from voice2face.errors import SettingError


class Search(Protocol):
    """Finds the rows nearest to unit-length queries by cosine."""

    def __call__(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Scores and rows, each ``(batch, count)``, highest score first."""
        ...


class ExactSearch:
    """A matrix product over all entries, ``SCORES_AT_ONCE`` at a time; lower row on a tie.

    Args:
        speech: ``(N, dim)`` unit vectors.
    """

    SCORES_AT_ONCE = 1 << 26  # 256 MB

    def __init__(self, speech: Tensor) -> None:
        self.speech = speech.float()

    def __call__(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See ``Search``."""
        parts = queries.float().cpu().split(max(1, self.SCORES_AT_ONCE // len(self.speech)))
        found = [highest(part @ self.speech.T, count) for part in parts]
        scores, rows = zip(*found, strict=True)
        return torch.cat(scores), torch.cat(rows)


class FaissSearch:
    """FAISS for millions of entries (extra ``retrieval``); exact up to ``EXACT_ENTRIES``.

    Beyond, the entries lie in clusters, and the nearest few clusters are searched, or all of them
    where those hold too few. Entries that tie come in any order.

    Args:
        speech: ``(N, dim)`` unit vectors.
        probes: share of the clusters that a query looks into, where there are clusters.
    """

    EXACT_ENTRIES = 100_000

    def __init__(self, speech: Tensor, probes: float = 0.05) -> None:
        try:
            import faiss
        except ImportError as error:
            raise SettingError(
                "searching with FAISS needs it: pip install 'voice2face[retrieval]'"
            ) from error
        vectors = speech.float().numpy()
        count, dim = vectors.shape
        flat = faiss.IndexFlatIP(dim)
        self.index: Any = flat
        if count > self.EXACT_ENTRIES:
            clusters = round(2 * count**0.5)  # twice as many take four times as long to find
            self.index = faiss.IndexIVFFlat(flat, dim, clusters, faiss.METRIC_INNER_PRODUCT)
            self.index.train(vectors[:: max(1, count // (40 * clusters))])
            self.index.nprobe = max(1, round(probes * clusters))
        self.index.add(vectors)

    def __call__(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See ``Search``."""
        vectors = queries.float().cpu().contiguous().numpy()
        scores, rows = self.index.search(vectors, count)
        lacking = (rows < 0).any(1)
        if lacking.any():  # the clusters that were searched hold too few entries
            import faiss

            wider: Any = faiss.SearchParametersIVF()
            wider.nprobe = self.index.nlist
            scores[lacking], rows[lacking] = self.index.search(
                vectors[lacking], count, params=wider
            )
        return torch.from_numpy(scores), torch.from_numpy(rows)


def highest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest of each query's scores ``(batch, N)``, and their rows; lower rows on a tie."""
    shape = len(scores), min(count, scores.shape[1])
    rows = torch.empty(shape, dtype=torch.int64, device=scores.device)
    lowest_kept = scores.topk(rows.shape[1], sorted=False).values.amin(1)
    for kept, of_query, lowest in zip(rows, scores, lowest_kept, strict=True):
        candidates = (of_query >= lowest).nonzero()[:, 0]  # topk takes any of those that tie
        order = of_query[candidates].argsort(descending=True, stable=True)
        kept.copy_(candidates[order[: len(kept)]])
    return scores.gather(1, rows), rows
