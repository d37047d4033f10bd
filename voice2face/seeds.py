"""Seeds: one for each portrait, given, drawn, counted up or made of a recording's name."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from itertools import count, repeat
from typing import TYPE_CHECKING, Any

from voice2face.argument_checks import is_several, is_whole
from voice2face.errors import SettingError

if TYPE_CHECKING:
    import torch

LARGEST_SEED = 2**63 - 1
LARGEST_RANDOM_SEED = 2**31 - 1


def choose_seeds(count: int, seed: int | None, generator: torch.Generator | None) -> list[int]:
    """Consecutive seeds from the one given, drawn from the generator, or random.

    Raises:
        SettingError: both are given, or the seed is no whole number from 0 on, or the generator is
            none, or several.
    """
    if seed is not None and generator is not None:
        raise SettingError("give a seed or a generator, not both")
    if generator is not None:
        import torch

        if not isinstance(generator, torch.Generator):
            raise SettingError(
                "generator is one torch.Generator, also of several portraits: portrait k has the "
                f"seed that it draws, plus k; this is a {type(generator).__name__}"
            )
        device, above = generator.device, LARGEST_RANDOM_SEED + 1
        seed = int(torch.randint(above, (1,), generator=generator, device=device))
    elif seed is None:
        seed = secrets.randbelow(LARGEST_RANDOM_SEED + 1)
    if not is_whole(seed) or not 0 <= seed <= LARGEST_SEED - count + 1:
        raise SettingError(f"seed is a whole number from 0 to 2**63 - {count}, not {seed!r}")
    return [int(seed) + k for k in range(count)]


def seeds_in_turn(seed: int | Iterable[int] | None, recordings: int = 1) -> Iterator[int]:
    """One seed for each of many recordings.

    Args:
        seed: the first, which the others follow upwards; or one for each; or ``None``, random ones.
        recordings: how many there are, or the least that there may be.

    Raises:
        SettingError: a seed is no whole number from 0 on; a first one at once, others in their
            turn.
    """
    seeds: Iterable[int | None]
    if seed is None:
        seeds = repeat(None)
    elif isinstance(seed, Iterable) and is_several(seed):
        seeds = seed
    else:
        first: Any = seed
        seeds = count(choose_seeds(recordings, first, None)[0])
    return (choose_seeds(1, one, None)[0] for one in seeds)


def seed_of_name(name: str, seed: int) -> int:
    """A recording's own seed, by its name: the same in every run, whatever lies beside it.

    Args:
        name: of the recording, the only one of that name.
        seed: another one gives all recordings other seeds.

    Returns:
        A seed below 2**32.
    """
    told = f"{seed}/{name}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(told).digest()[:4])
