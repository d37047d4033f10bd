"""The command ``voice2face``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from voice2face import __version__
from voice2face.commands import app, checkpoints, folder, pictures, recording
from voice2face.commands.ending_signals import interrupted
from voice2face.commands.named_recordings import named_recordings
from voice2face.commands.options import (
    BATCH_SIZE,
    add_pipeline_options,
    number_argument,
    variety_argument,
)
from voice2face.commands.streams import drop_what_is_printed, usable_streams
from voice2face.errors import Voice2FaceError
from voice2face.paths import exists, expanded, is_folder
from voice2face.seeds import LARGEST_SEED
from voice2face.settings import (
    DEFAULT_PRESET,
    DEFAULT_VARIETY,
    HIGHEST_GUIDANCE,
    MOST_IMAGES,
    MOST_STEPS,
    PRESETS,
)

NOBODY_READS = 141  # as shells report SIGPIPE
CLOSE_NAMES = 0.7  # the share of letters, as difflib counts it, that a misspelt command has right

EXAMPLES = """\
examples:
  voice2face talk.wav                          writes talk.png in this folder
  voice2face talk.wav -o face.png --seed 7     the same portrait every time
  voice2face talk.wav -o face.png --num-images 4
                                               face-1.png … face-4.png, four plausible speakers
  voice2face talk.wav --preset balanced --guidance 3
                                               follows sex and age of the voice more strongly
  voice2face talk.wav --preset best            by the papers' 50 steps instead of four distilled
  voice2face talk.wav --variety 0.5            more typical faces in more even light
  voice2face - -o - <talk.wav >face.png        PNG on standard output, text on standard error

several recordings, and folders:
  voice2face *.wav -o portraits/               one portrait for each recording; patterns work in
                                               every shell
  voice2face recordings/ -o portraits/         one for each under the folder; both go on where they
                                               stopped, past bad files
  voice2face recordings/ -o portraits/ --batch-size 32 --report run.csv --contact-sheet all.png

portraits:
  voice2face inspect face.png                  how it was made: seed, settings, checksums
  voice2face replay face.png --audio talk.wav  makes it again and says what differs
  voice2face verify face.jpg other.webp        looks for the invisible watermark, and validates
                                               content credentials (C2PA)
  voice2face verify --json *.jpg               for programs, inspect too: a JSON object a picture

web page:
  voice2face app                               record or drop a file, choose among four portraits

checkpoints:
  voice2face models                            lists them: size, licence, where each lies
  voice2face download NAME --to DIR            copies one, from the package or the Hub
  voice2face verify-weights [NAME|DIR]         compares every file's sha256
  voice2face export-onnx [NAME|DIR] --to DIR   writes the networks for programs without PyTorch

A voice tells sex and, roughly, age; the rest of the portrait is invented. It shows nobody.
exit codes: 0 done, 1 something was wrong with the input (one line says what), 2 wrong usage; for
several recordings, or a folder, 1 if any has no portrait
"""


def build_parser() -> argparse.ArgumentParser:
    """Declare the command line."""
    parser = argparse.ArgumentParser(
        prog="voice2face",
        description="Turn a voice recording into a portrait of a plausible speaker.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "audio",
        type=audio_argument,
        nargs="+",
        help="recording (WAV, FLAC, Ogg, MP3 or AIFF; with the extra media M4A and videos, too), - "
        "for standard input; several of them, or a folder of them",
    )
    parser.add_argument(
        "-o",
        "--output",
        help="picture to write, .png, .jpg or .webp, a folder that is there for it, or - for "
        "PNG on standard output (default: "
        "the recording's name, .png, here, unless anything but a portrait has it); of "
        "several recordings, or a folder, the portraits' folder (default: portraits)",
    )
    parser.add_argument(
        "--num-images",
        type=number_argument(int, 1, MOST_IMAGES),
        default=1,
        metavar="N",
        help="portraits to make (default: 1)",
    )
    parser.add_argument(
        "--seed",
        type=number_argument(int, 0, LARGEST_SEED),
        help="makes the same portrait again (default: a new one each time); of several "
        "recordings, or a folder, each gets one that follows from this one and its name, or path",
    )
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default=DEFAULT_PRESET,
        help="trade of time for quality: sampler, steps and guidance (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=number_argument(int, 1, MOST_STEPS),
        metavar="N",
        help=f"1 to {MOST_STEPS}, in place of the preset's; any number but the learnt one "
        f"({PRESETS['fast'].num_inference_steps}) switches 'fast' to 'balanced'",
    )
    parser.add_argument(
        "--guidance",
        type=number_argument(float, 0, HIGHEST_GUIDANCE),
        metavar="X",
        help="how strongly sex and age of the voice are followed, 0 to "
        f"{HIGHEST_GUIDANCE:g}; 1 is as trained; any value but the learnt one "
        f"({PRESETS['fast'].guidance_scale:g}; fine-portraitist-192: 2) switches 'fast' to "
        "'balanced' (default: the preset's)",
    )
    parser.add_argument(
        "--variety",
        type=variety_argument,
        default=DEFAULT_VARIETY,
        metavar="X",
        help="0 to 1: with 1, faces, light and pose vary as much as was learnt; with less, faces "
        "are more typical and better made (default: %(default)s)",
    )
    add_pipeline_options(parser)
    parser.add_argument(
        "--no-watermark",
        dest="watermark",
        action="store_false",
        help="leave out the invisible mark that 'voice2face verify' looks for",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write what became of each recording, .csv or .json: seed, sex and age heard, error",
    )
    folders = parser.add_argument_group("several recordings, and folders")
    folders.add_argument(
        "--batch-size",
        type=number_argument(int, 1, MOST_IMAGES),
        metavar="N",
        help=f"portraits at once (default: {BATCH_SIZE})",
    )
    folders.add_argument(
        "--overwrite", action="store_true", help="make portraits again that are there already"
    )
    folders.add_argument(
        "--contact-sheet", type=Path, metavar="FILE", help="write the portraits in one picture"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--version", action="version", version=f"voice2face {__version__}")
    return parser


def audio_argument(word: str) -> Path:
    """The recording, or the folder, that a command line names.

    Raises:
        argparse.ArgumentTypeError: it names nothing, which a path takes for this folder.
    """
    if not word:
        raise argparse.ArgumentTypeError("an empty name; name a recording, or . for this folder")
    return Path(word)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    with usable_streams():
        return exit_code(sys.argv[1:] if arguments is None else list(arguments))


def exit_code(words: list[str]) -> int:
    """Run the command; say in one line what went wrong."""
    try:
        try:
            done = run(words)
        finally:  # of -h, too
            sys.stdout.flush()
    except Voice2FaceError as error:
        print(f"voice2face: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return interrupted()
    except BrokenPipeError:
        drop_what_is_printed(sys.stdout)
        return NOBODY_READS
    except OSError as error:  # of printing to a disk that is full, say
        drop_what_is_printed(sys.stdout)
        print(f"voice2face: {error}", file=sys.stderr)
        return 1
    return 0 if done else 1


def run(words: list[str]) -> bool:
    """Run the command; false where some of what was asked for is missing or not as it was."""
    if words and words[0] in checkpoints.COMMANDS:
        checkpoints.run(words)
        return True
    if words and words[0] in pictures.COMMANDS:
        return pictures.run(words)
    if words and words[0] == "app":
        app.run(words[1:])
        return True
    parser = build_parser()
    if words and (meant := command_meant(words[0])) is not None:
        parser.error(f"{words[0]} is no recording here, nor a command; did you mean {meant}?")
    options, more = parser.parse_known_intermixed_args(names_as_paths(words))
    if more:
        parser.error(
            f"unrecognized arguments: {' '.join(more)}; 'voice2face -h' shows options and commands"
        )
    options.audio = named_recordings(options.audio)
    if len(options.audio) > 1 or is_folder(expanded(options.audio[0])):
        return folder.make_portraits_of_folder(options)
    most = LARGEST_SEED - options.num_images + 1
    if options.seed is not None and options.seed > most:
        parser.error(
            f"argument --seed: give a whole number from 0 to {most}, not {str(options.seed)!r}"
        )
    recording.make_portraits(options)
    return True


def command_meant(word: str) -> str | None:
    """The command that a word is nearly called, where nothing of that name is there."""
    path = Path(word)
    if word.startswith("-") or path.name != word or path.suffix or exists(expanded(path)):
        return None
    commands = [*pictures.COMMANDS, *checkpoints.COMMANDS, "app"]
    return next(iter(get_close_matches(word, commands, 1, CLOSE_NAMES)), None)


def names_as_paths(words: list[str]) -> list[str]:
    """Words without ``--``, after which ``-r1.wav`` is a recording: ``./-r1.wav``, for argparse."""
    if "--" not in words:
        return words
    end = words.index("--")
    names = [f"./{word}" if word.startswith("-") and word != "-" else word for word in words[end:]]
    return words[:end] + names[1:]
