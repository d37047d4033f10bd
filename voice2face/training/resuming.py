"""Whether a run goes on with the options, the tables and the networks that it was begun with."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from voice2face.errors import SettingError

logger = logging.getLogger("voice2face.training")

STATE = "training_state.safetensors"
BEGUN_WITH = "begun_with"
MAY_CHANGE = frozenset(
    {
        *("time_budget", "max_steps", "cooldown", "evaluate_every", "device", "compile"),
        *("out", "resume", "latents", "refused", "refused_for_eyes"),
    }
)
TABLES = frozenset({"faces", "voices", "pairs", "limit"})  # compared by what is read of them


def refuse_other_stage(state: Path, stage: str) -> None:
    """Refuse a folder in which another stage keeps what it learns.

    Args:
        state: of the run that is there already, if one is.
        stage: that is to write there.

    Raises:
        SettingError: says whose it is.
    """
    theirs = stage
    unreadable = (OSError, SafetensorError, ValueError, LookupError, TypeError)
    with suppress(*unreadable), safe_open(state, "pt") as file:
        theirs = json.loads(file.metadata()[BEGUN_WITH])["options"]["stage"]
    if theirs != stage:
        raise SettingError(
            f"{state.parent} is the output folder of {theirs}, of which {stage} would overwrite "
            "parts: choose another --out"
        )


def refuse_other_options(state: Path, now: dict[str, Any]) -> None:
    """Compare the options of a run that is to go on with those that it was begun with.

    Args:
        state: of the run; where there is none, it begins.
        now: as ``options.begun_with`` says.

    Raises:
        SettingError: they differ, or the state cannot be read.
    """
    if not state.exists():
        logger.info("there is no %s to go on from: the run begins", state)
        return
    with state_errors(state), safe_open(state, "pt") as file:
        metadata = file.metadata() or {}
        before = json.loads(metadata.get(BEGUN_WITH, "null"))
    if before is None:
        logger.warning(
            "%s is of an older version, which did not note the options: give the same as at first",
            state,
        )
        return
    asked, asked_now = before["options"], now["options"]
    changed = [
        name
        for name in asked
        if name in asked_now and asked[name] != asked_now[name] and name not in MAY_CHANGE | TABLES
    ]
    other_tables = before["tables"] != now["tables"]
    if other_tables:
        changed += [name for name in sorted(TABLES) if asked.get(name) != asked_now.get(name)]
    said = [f"--{name.replace('_', '-')} was {_in_words(asked.get(name))}" for name in changed]
    if other_tables:
        said.append("the tables held other rows")
    if said:
        raise SettingError(
            f"{state.parent} was begun otherwise: {'; '.join(said)}. Go on as it was begun, or "
            "begin anew, without --resume"
        )


@contextmanager
def state_errors(state: Path) -> Iterator[None]:
    """Say of which state it is that it cannot be gone on from.

    Raises:
        SettingError: the code inside could not read it, or it does not fit the networks.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, ValueError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise SettingError(
            f"{state} cannot be gone on from, as it is damaged or of other networks "
            f"({reason:.300}): give the options that the run was begun with, or begin anew, "
            "without --resume"
        ) from error


def _in_words(value: object) -> str:
    if value is None or value is False:
        return "not given"
    if value is True:
        return "given"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
