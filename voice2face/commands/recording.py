"""``voice2face talk.wav``: one portrait of a recording, or several."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from voice2face.commands.named_recordings import check_there
from voice2face.commands.options import draw_settings, wants_bars
from voice2face.commands.recording_report import RecordingReport
from voice2face.errors import AudioError, OutputError, PictureError, SettingError
from voice2face.fast_import import import_pipeline
from voice2face.paths import (
    STANDARD_INPUT,
    STANDARD_OUTPUT,
    exists,
    expanded,
    is_folder,
    names_folder,
    recording_of,
)
from voice2face.picture_files import format_of, numbered
from voice2face.portrait import Portraits
from voice2face.saved_portraits import read_portrait
from voice2face.seeds import choose_seeds
from voice2face.whole_files import check_writable


def make_portraits(options: argparse.Namespace) -> None:
    """Make one recording's portraits, as the parsed command line asks.

    A report tells of them, too, and why there are none where the recording cannot be used.
    """
    (audio,) = options.audio
    if options.batch_size is not None or options.contact_sheet is not None:
        raise SettingError(
            "--batch-size and --contact-sheet are of folders and of several recordings; leave them "
            "out"
        )
    try:
        paths = places_of(audio, options)
    except OutputError:  # of a folder that is not made for what was meant to be several recordings
        if options.output is not None and audio != STANDARD_INPUT:
            check_there(audio)
        raise
    report = None if options.report is None else RecordingReport(options.report, audio, paths)
    try:
        portraits = draw(audio, options)
        for portrait, path in zip(portraits, paths, strict=bool(paths)):
            portrait.save(path)
    except (AudioError, OutputError) as error:
        if report is not None:
            report.write_failed(error)
        raise
    if report is not None:
        report.write_made(portraits)
    if not options.quiet:
        tell_of(portraits, paths)
    if not paths:
        sys.stdout.buffer.write(portraits[0].png())


def draw(audio: Path, options: argparse.Namespace) -> Portraits:
    """The portraits that a command line asks for, of one recording.

    Raises:
        AudioError: the recording cannot be used.
        CheckpointError: the checkpoint cannot be used.
        DeviceError: there is no such device.
        SettingError: an argument is out of range.
    """
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

        return pipe.draw(
            [voice] * options.num_images, seeds, callback_on_step_end=advance, **settings
        )


def tell_of(portraits: Portraits, paths: Sequence[Path]) -> None:
    """Print what was heard, and where the portraits lie; aside where one is on standard output."""
    said = sys.stdout if paths else sys.stderr
    evidence = portraits.evidence
    certainty = max(evidence.male_probability, 1 - evidence.male_probability)
    print(
        f"{evidence.speech_seconds:.1f} s of speech, sounds {evidence.sex} ({certainty:.0%}), "
        f"about {evidence.age}",
        file=said,
    )
    for warning in evidence.warnings:
        print(f"warning: {warning}", file=said)
    for portrait, path in zip(portraits, paths or [Path(STANDARD_OUTPUT)], strict=True):
        print(f"{path}  seed {portrait.seed}", file=said)


def places_of(audio: Path, options: argparse.Namespace) -> list[Path]:
    """Where the portraits go, which can be written; nowhere where one goes to standard output.

    Raises:
        OutputError: as of ``place_of``, or a file could not be written.
        SettingError: likewise, or several portraits are to go to standard output.
    """
    if options.output == STANDARD_OUTPUT:
        if options.num_images > 1:
            raise SettingError("standard output takes one portrait; leave out --num-images")
        return []
    output = place_of(audio, options)
    format_of(output)
    paths = numbered(expanded(output), options.num_images)
    check_writable(paths[-1])
    return paths


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
