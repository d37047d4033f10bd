"""One component of a checkpoint. Its configuration and its weights' header are checked first.

Nothing is unpickled and no class is looked up by a name in a file: the pipeline says which class a
folder holds, and the folder has to fit that class exactly.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from diffusers import DDIMScheduler, ModelMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from voice2face.checkpoints.manifest import read_json
from voice2face.errors import ArchitectureError
from voice2face.models.face_entries import ENTRIES_FILE
from voice2face.models.face_retriever import FaceRetriever
from voice2face.models.few_step_update import UPDATE_FILE, FewStepUpdate
from voice2face.models.network import LONGEST_LIST, Network, Ranges

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
SCHEDULE_FILE = "scheduler_config.json"
# components that read and write one file of their own
SINGLE_FILES: Mapping[type, str] = {FaceRetriever: ENTRIES_FILE, FewStepUpdate: UPDATE_FILE}
LARGEST_WEIGHTS_BYTES = 8 << 30
MOST_PARAMETERS = 2 << 30
SCHEDULE_NUMBERS: Ranges = {
    "num_train_timesteps": (1, 10_000),
    "beta_start": (1e-8, 0.5),
    "beta_end": (1e-8, 0.999),
}
SCHEDULE_WORDS: Mapping[str, tuple[str, ...]] = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction"),
}


Component = TypeVar("Component")
SomeNetwork = TypeVar("SomeNetwork", bound=Network)


def load_network(kind: type[SomeNetwork], folder: Path) -> SomeNetwork:
    """Load a network whose files fit its class exactly, in single precision, ready to be used.

    Args:
        kind: the network's class, a ``Network``.
        folder: holds ``config.json`` and the safetensors file.

    Raises:
        ArchitectureError: a file is missing, unreadable, too large, or does not fit.
    """
    config = read_config(folder / CONFIG_FILE, kind)
    check_numbers(config, kind.ranges, folder / CONFIG_FILE)
    try:
        with torch.device("meta"):
            network = kind(**config)
    except Exception as error:  # whatever a layer says of sizes that do not go together
        raise ArchitectureError(
            f"{folder / CONFIG_FILE} describes no {kind.__name__}: {error}"
        ) from error
    expected = network.state_dict()
    if sum(tensor.numel() for tensor in expected.values()) > MOST_PARAMETERS:
        raise ArchitectureError(f"{folder / CONFIG_FILE} describes an absurdly large network")
    weights = folder / WEIGHTS_FILE
    check_header(weights, expected)
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ArchitectureError(f"{weights} cannot be read: {error}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArchitectureError(f"{weights}: {name} holds NaN or infinite weights")
    network.load_state_dict(tensors, assign=True)
    return network.float().eval()


def load_schedule(folder: Path) -> DDIMScheduler:
    """Load a noise schedule.

    Raises:
        ArchitectureError: the file is missing, unreadable, or holds unknown values.
    """
    path = folder / SCHEDULE_FILE
    config = read_config(path, DDIMScheduler)
    check_numbers(config, SCHEDULE_NUMBERS, path, only_known=False)
    for name, allowed in SCHEDULE_WORDS.items():
        if config.get(name, allowed[0]) not in allowed:
            raise ArchitectureError(
                f"{path}: {name} is {' or '.join(allowed)}, not {config[name]!r}"
            )
    kept = {name: config[name] for name in (*SCHEDULE_NUMBERS, *SCHEDULE_WORDS) if name in config}
    try:
        return DDIMScheduler(**kept, clip_sample=False, timestep_spacing="trailing")
    except Exception as error:  # diffusers passes what it is given on to torch and numpy
        raise ArchitectureError(f"{path} describes no noise schedule: {error}") from error


def read_config(path: Path, kind: Any) -> dict[str, Any]:
    """Read a component's configuration: of the right class, and with known keys only.

    Raises:
        ArchitectureError: unreadable, of another class, or with unknown keys.
    """
    content = read_json(path)
    if content.get("_class_name") != kind.__name__:
        raise ArchitectureError(
            f"{path} is of a {content.get('_class_name')!r}, expected {kind.__name__}"
        )
    config = {name: value for name, value in content.items() if not name.startswith("_")}
    unknown = sorted(set(config) - set(inspect.signature(kind.__init__).parameters))
    if unknown:
        raise ArchitectureError(
            f"{path}: unknown keys {', '.join(unknown)}; a newer version may have made this"
        )
    return config


def check_numbers(
    config: Mapping[str, Any],
    ranges: Ranges,
    path: Path,
    *,
    only_known: bool = True,
) -> None:
    """Refuse values that are no numbers, or lists of them, in their ranges.

    Raises:
        ArchitectureError: says which key, and its range.
    """
    for name, value in config.items():
        if name not in ranges:
            if only_known:
                raise ArchitectureError(f"{path}: {name} has no known range")
            continue
        low, high = ranges[name]
        numbers = value if isinstance(value, list) else [value]
        if not 1 <= len(numbers) <= LONGEST_LIST or not all(
            isinstance(number, (int, float))
            and not isinstance(number, bool)
            and low <= number <= high
            for number in numbers
        ):
            raise ArchitectureError(f"{path}: {name} lies from {low} to {high}, not {value!r:.60}")


def check_header(weights: Path, expected: Mapping[str, torch.Tensor]) -> None:
    """Compare names, shapes and kinds of a safetensors file with what a network needs.

    Only the header is read.

    Raises:
        ArchitectureError: the file is missing, damaged, too large, or does not fit.
    """
    try:
        if weights.stat().st_size > LARGEST_WEIGHTS_BYTES:
            raise ArchitectureError(f"{weights} is over {LARGEST_WEIGHTS_BYTES >> 30} GiB")
        with safe_open(weights, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {
                name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()
            }
    except (OSError, SafetensorError) as error:
        raise ArchitectureError(f"{weights} is no safetensors file: {error}") from error
    missing, strays = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or strays:
        raise ArchitectureError(
            f"{weights} does not fit its configuration: {len(missing)} tensors are missing "
            f"({', '.join(missing[:3])}), {len(strays)} are unknown ({', '.join(strays[:3])})"
        )
    for name, tensor in expected.items():
        shape, kind = found[name]
        fits = kind in ("F16", "BF16", "F32") if tensor.is_floating_point() else kind == "I64"
        if shape != tuple(tensor.shape) or not fits:
            raise ArchitectureError(
                f"{weights}: {name} is {kind} {list(shape)}, "
                f"its configuration asks for {list(tensor.shape)}"
            )


def component_files(kind: Any) -> tuple[str, ...]:
    """Names of the files that a component of this class, or of these classes, is read from."""
    kind = kind[0] if isinstance(kind, tuple) else kind
    if kind in SINGLE_FILES:
        return (SINGLE_FILES[kind],)
    return (CONFIG_FILE, WEIGHTS_FILE) if issubclass(kind, ModelMixin) else (SCHEDULE_FILE,)


@overload
def load_component(kind: type[Component], folder: Path) -> Component: ...


@overload
def load_component(kind: tuple[type[Component], ...], folder: Path) -> Component: ...


def load_component(kind: Any, folder: Path) -> Any:
    """Load a network, the noise schedule, a retriever or an update from its folder.

    Args:
        kind: the class, or a tuple of classes of which the folder's configuration names one.
        folder: where it lies.

    Raises:
        ArchitectureError: the folder is missing or does not fit the class.
    """
    if not folder.is_dir():
        there = folder.parent
        if not there.is_dir():
            raise ArchitectureError(f"there is no folder {there}")
        raise ArchitectureError(f"{there} holds no {folder.name}")
    if isinstance(kind, tuple):
        named = read_json(folder / CONFIG_FILE).get("_class_name")
        kind = next((one for one in kind if one.__name__ == named), kind[0])
    if kind in SINGLE_FILES:
        return kind.load(folder)
    if WEIGHTS_FILE in component_files(kind):
        return load_network(kind, folder)
    return load_schedule(folder)
