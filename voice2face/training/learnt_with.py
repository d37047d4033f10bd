"""Which networks a stage learnt with, so that a checkpoint is made of parts that go together.

What a stage does not depend on may change: the decoder over the same latents, the heads for sex and
age, the entries that faces are retrieved from, the configuration of what portraits are asked for.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import nn

from voice2face.checkpoints.manifest import read_json
from voice2face.checkpoints.model_index import MODEL_INDEX, read_model_index
from voice2face.components import load_component
from voice2face.data.tables import UNKNOWN, VoiceTable
from voice2face.errors import SettingError
from voice2face.pretrained_networks import components_of
from voice2face.training.kept_files import fingerprint
from voice2face.training.part_folders import part_folder
from voice2face.whole_files import replace_file

logger = logging.getLogger("voice2face.training")

LEARNT_WITH = "learnt_with.json"
HEADS = ("sex_head.", "age_head.")
# what each stage learns with, as it notes itself, by the names of ``release``'s options
NETWORKS_OF_STAGES: Mapping[str, tuple[str, ...]] = {
    "decoder": ("face_encoder",),
    "diffusion": ("face_encoder", "speech_encoder"),
    "distillation": ("denoiser",),
    "face_check": ("face_encoder",),
    "bottom": ("face_encoder", "speech_encoder"),
    "upper": ("face_encoder", "speech_encoder"),
    "retriever": ("face_encoder", "speech_encoder"),
    "bottom_distillation": ("bottom_denoiser",),
    "upper_distillation": ("upper_denoiser",),
}


def weights_fingerprint(network: nn.Module) -> str:
    """The checksum of a network's weights but for the heads for sex and age."""
    weights = {
        name: tensor for name, tensor in network.state_dict().items() if not name.startswith(HEADS)
    }
    return fingerprint(weights.keys(), *weights.values())


def note_learnt_with(
    out: Path, networks: Mapping[str, nn.Module], labelled: Sequence[str] | None = None
) -> None:
    """Write down what a stage learns with.

    Args:
        out: folder of the stage.
        networks: by their names in a checkpoint.
        labelled: of a stage that trains the heads, see ``labelled_attributes_of``.
    """
    content: dict[str, object] = {
        "networks": {name: weights_fingerprint(network) for name, network in networks.items()}
    }
    if labelled is not None:
        content["labelled"] = list(labelled)
    text = json.dumps(content, indent=2) + "\n"
    replace_file(out / LEARNT_WITH, partial(Path.write_text, data=text))


def labelled_attributes_of(voices: VoiceTable) -> list[str]:
    """Which of sex and age any voice is labelled with; says so where one is missing."""
    labels = {"sex": voices.sex, "age": voices.age}
    known = [name for name, values in labels.items() if (values != UNKNOWN).any()]
    if len(known) < len(labels):
        unknown = " and ".join(name for name in labels if name not in known)
        logger.warning(
            "no voice is labelled with %s: what the evidence of a portrait says of it will mean "
            "nothing, and --heard-attributes would tell the denoiser random numbers",
            unknown,
        )
    return known


def refuse_other_networks(
    stages: Mapping[str, Path | None], components: Mapping[str, object]
) -> None:
    """Compare the parts of a checkpoint with what each stage learnt with.

    Args:
        stages: their output folders, or checkpoints, by the names of ``release``'s options.
        components: that were gathered from them.

    Raises:
        SettingError: a stage learnt with another network.
    """
    now: dict[str, str] = {}
    for stage, folder in stages.items():
        if folder is None or stage == "collaborative":
            continue
        noted = networks_learnt_with(stage, folder)
        if noted is None:
            if folder != stages["collaborative"]:
                logger.warning(
                    "--%s %s does not say which networks it learnt with, as older runs do not: "
                    "make sure that it belongs to the others",
                    stage.replace("_", "-"),
                    folder,
                )
            continue
        for name, learnt in noted.items():
            network = components.get(name)
            if not isinstance(network, nn.Module):
                continue
            if name not in now:
                now[name] = weights_fingerprint(network)
            if learnt != now[name]:
                raise SettingError(
                    f"--{stage.replace('_', '-')} {folder} learnt with another {name} than the one "
                    "that is to be released: give the folders of the runs that it learnt with, or "
                    "train it over these"
                )


def networks_learnt_with(stage: str, folder: Path) -> dict[str, str] | None:
    """Fingerprints of the networks that a stage learnt with; of a checkpoint, of its own ones.

    Args:
        stage: as ``release``'s option is called.
        folder: of the stage, or a checkpoint.

    Returns:
        By their names in a checkpoint; ``None`` where the folder does not say.
    """
    if (folder / LEARNT_WITH).is_file():
        noted: dict[str, str] = read_json(folder / LEARNT_WITH)["networks"]
        return noted
    if not (folder / MODEL_INDEX).is_file():
        return None
    index = read_model_index(folder)
    kinds = components_of(index["method"], {name.partition("/")[0] for name in index["files"]})
    return {
        name: weights_fingerprint(load_component(kinds[name], part_folder(folder, name)))
        for name in NETWORKS_OF_STAGES.get(stage, ())
        if name in kinds
    }


def unlabelled_attributes(folder: Path) -> list[str]:
    """Which of sex and age no voice of stage 1 was labelled with; none where it does not say."""
    said = read_json(folder / LEARNT_WITH) if (folder / LEARNT_WITH).is_file() else {}
    labelled = said.get("labelled", ["sex", "age"])
    return [name for name in ("sex", "age") if name not in labelled]
