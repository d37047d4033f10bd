"""``voice2face talk.wav``: one portrait of a recording, or several."""

from __future__ import annotations

import argparse
from pathlib import Path

from voice2face.commands.options import draw_settings, wants_bars
from voice2face.errors import OutputError, PictureError, SettingError
from voice2face.fast_import import import_pipeline
from voice2face.paths import (
    STANDARD_INPUT,
    exists,
    expanded,
    is_folder,
    names_folder,
    recording_of,
)
from voice2face.picture_files import format_of, numbered
from voice2face.replay import read_portrait
from voice2face.seeds import choose_seeds
from voice2face.whole_files import check_writable


def make_portraits(options: argparse.Namespace) -> None:
    """Make one recording's portraits, as the parsed command line asks."""
    (audio,) = options.audio
    of_folders = (options.batch_size, options.report, options.contact_sheet)
    if any(option is not None for option in of_folders):
        raise SettingError(
            "--batch-size, --report and --contact-sheet are of folders and of several recordings; "
            "leave them out"
        )
    output = place_of(audio, options)
    format_of(output)
    check_writable(numbered(expanded(output), options.num_images)[-1])
    seeds = choose_seeds(options.num_images, options.seed, None)

    import_pipeline()
    from tqdm.auto import tqdm

    from voice2face.devices import at_once
    from voice2face.listening import speech_of
    from voice2face.pipeline import Voice2FacePipeline

    speech = speech_of(recording_of(audio))
    pipe = Voice2FacePipeline.from_pretrained(options.model, device=options.device)
    settings = draw_settings(options)
    steps = pipe.settings(**settings).num_inference_steps
    unseen = not wants_bars(options)
    with tqdm(desc="listening", unit="window", disable=unseen, leave=False, delay=1) as bar:

        def heard(windows: int, of: int) -> None:
            bar.total = of
            bar.update(windows - bar.n)

        voice = pipe.listen(speech, on_windows=heard)
    batches = -(-options.num_images // at_once(pipe.device).latents)
    total = steps * pipe.method.stages * batches
    with tqdm(desc="denoising", total=total, unit="step", disable=unseen, leave=False) as bar:

        def advance(_pipe: object, _step: int, _timestep: int, state: dict) -> dict:
            bar.update()
            return state

        portraits = pipe.draw(
            [voice] * options.num_images, seeds, callback_on_step_end=advance, **settings
        )
    paths = portraits.save(output)
    if options.quiet:
        return
    evidence = portraits.evidence
    certainty = max(evidence.male_probability, 1 - evidence.male_probability)
    print(
        f"{evidence.speech_seconds:.1f} s of speech, sounds {evidence.sex} ({certainty:.0%}), "
        f"about {evidence.age}"
    )
    for warning in evidence.warnings:
        print(f"warning: {warning}")
    for portrait, path in zip(portraits, paths, strict=True):
        print(f"{path}  seed {portrait.seed}")


def place_of(audio: Path, options: argparse.Namespace) -> Path:
    """Where the portrait goes: to the file named, or by the recording's name to a folder.

    Raises:
        OutputError: the folder is not there, or a file that nobody named and that is no portrait
            would be replaced.
        SettingError: standard input, which has no name, and no file for its portrait.
    """
    place: str | None = options.output
    if place is not None and not is_folder(expanded(place)):
        if names_folder(place):
            raise OutputError(f"{place} is not a folder; make it first, or name a picture")
        return Path(place)
    if audio == STANDARD_INPUT:
        raise SettingError("standard input has no name; name the picture: -o face.png")
    named = Path(place or "") / audio.with_suffix(".png").name
    for path in numbered(expanded(named), options.num_images):
        check_portrait_may_go(path)
    return named


def check_portrait_may_go(path: Path) -> None:
    """Refuse a place where anything but a portrait is.

    Raises:
        OutputError: says so.
    """
    if not exists(path):
        return
    try:
        read_portrait(path)
    except PictureError as error:
        raise OutputError(
            f"{path} is there and is no portrait of voice2face; name another place, or this: "
            "-o FILE"
        ) from error
