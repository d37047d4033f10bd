"""The commands ``voice2face inspect``, ``replay`` and ``verify``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from voice2face.checkpoints.manifest import manifest
from voice2face.commands.options import add_pipeline_options
from voice2face.errors import CredentialError, PictureError
from voice2face.fast_import import import_pipeline
from voice2face.paths import expanded, matching, recording_of
from voice2face.picture_files import format_of, open_picture
from voice2face.replay import replay
from voice2face.saved_portraits import read_portrait
from voice2face.whole_files import check_writable


def build_parser() -> argparse.ArgumentParser:
    """Declare the three commands."""
    parser = argparse.ArgumentParser(prog="voice2face", description="Look into saved portraits.")
    commands = parser.add_subparsers(dest="command", required=True)
    summary = "print how a saved portrait was made"
    inspect = commands.add_parser("inspect", help=summary, description=summary)
    inspect.add_argument("pictures", type=Path, nargs="+", help="PNGs that voice2face wrote")
    add_json_option(inspect)

    summary = "make a saved portrait again from its recording, and say what differs"
    again = commands.add_parser(
        "replay",
        help=summary,
        description=f"{summary}; exit code 0 if every pixel is the same, else 1",
    )
    again.add_argument("picture", type=Path, help="a PNG that voice2face wrote")
    again.add_argument(
        "--audio",
        type=Path,
        required=True,
        help="the recording it was made from; - for standard input",
    )
    again.add_argument("-o", "--output", type=Path, help="write the new portrait here")
    add_pipeline_options(again, default="the one that the picture names")

    summary = "look for the invisible watermark in pictures of any format and size"
    verify = commands.add_parser(
        "verify",
        help=summary,
        description=f"{summary}: yes, no or unsure, with a probability; exit code 0 for yes only, "
        "and of several pictures for all. A content credential (C2PA) is validated if there is one",
    )
    verify.add_argument("pictures", type=Path, nargs="+", help="any pictures")
    verify.add_argument(
        "--trust", type=Path, metavar="FILE", help="PEM certificates whose signers are trusted"
    )
    add_json_option(verify)
    return parser


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json``."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object for each picture, one a line; of those that cannot be read, the "
        "error",
    )


def inspect_pictures(options: argparse.Namespace) -> bool:
    """Print what pictures say of themselves; tells whether all could be read."""

    def inspect(picture: Path) -> bool:
        saved = read_portrait(picture)
        details = saved.as_dict()
        if options.json:
            print_json(picture, synthetic=True, **details)
            return True
        print("synthetic: made from a voice by a neural network, it shows nobody")
        for name, value in details.items():
            print(f"{name}: {value}")
        return True

    return of_each(options, inspect)


def replay_picture(options: argparse.Namespace) -> bool:
    """Make the picture again; tells whether it came out the same."""
    if options.output is not None:
        format_of(options.output)
        check_writable(expanded(options.output))
    saved = read_portrait(options.picture)
    name = options.model or saved.settings.checkpoint
    if options.model is None and name not in manifest()["checkpoints"]:
        raise PictureError(
            f"{options.picture} was made with {name!r:.80}; say where it is: --model"
        )
    import_pipeline()
    from voice2face.pipeline import Voice2FacePipeline

    pipe = Voice2FacePipeline.from_pretrained(name, device=options.device)
    result = replay(saved, recording_of(options.audio), pipe)
    if options.output is not None:
        print(result.portrait.save(options.output))
    for difference in result.differences:
        print(difference)
    if not result.differences:
        print("every pixel is the same")
    return not result.differences


def verify_pictures(options: argparse.Namespace) -> bool:
    """Look for watermarks and content credentials; tells whether all are watermarked for sure."""
    from voice2face.content_credentials import read_pem
    from voice2face.watermark import detect

    if options.trust is not None:
        read_pem(options.trust)

    def verify(picture: Path) -> bool:
        detection = detect(open_picture(picture))
        told = credential_of(picture, options.trust)
        if options.json:
            print_json(
                picture,
                answer=detection.answer,
                probability=detection.probability,
                content_credential=told,
            )
            return detection.answer == "yes"
        probability = f"{detection.probability:.1%}"
        print(f"{detection.answer}: made by voice2face with a probability of {probability}")
        if detection.answer == "unsure":
            print("  a larger picture, or a crop around the portrait, tells more")
        print_credential(told)
        return detection.answer == "yes"

    return of_each(options, verify)


def of_each(options: argparse.Namespace, look: Callable[[Path], bool]) -> bool:
    """Look at every picture, past those that cannot be read; tells whether all are as hoped for."""
    as_hoped = True
    pictures = [found for named in options.pictures for found in matching(named) or [named]]
    for picture in pictures:
        if len(pictures) > 1 and not options.json:
            print(f"{picture}:", flush=True)
        try:
            as_hoped &= look(picture)
        except PictureError as error:
            if options.json:
                print_json(picture, error=str(error))
            print(f"voice2face: {error}", file=sys.stderr)
            as_hoped = False
    return as_hoped


def print_json(picture: Path, **told: object) -> None:
    """Print what is told of a picture, for programs."""
    print(json.dumps({"picture": str(picture), **told}), flush=True)


def credential_of(picture: Path, trust: Path | None) -> dict[str, Any] | None:
    """What a content credential tells, or the ``"error"`` of one that cannot be read."""
    from voice2face.content_credentials import read_credential

    try:
        credential = read_credential(picture, trust=trust)
    except CredentialError as error:
        return {"error": str(error)}
    return None if credential is None else asdict(credential)


def print_credential(told: Mapping[str, Any] | None) -> None:
    """Say what a content credential tells, if the picture has one."""
    if told is None:
        return
    if "error" in told:
        print(f"content credential: {told['error']}")
        return
    verdict = {
        "trusted": "the signature is valid and its certificate trusted",
        "valid": "the signature is valid, but nobody vouches for its certificate",
        "invalid": f"NOT VALID: {', '.join(told['problems'])}",
    }[told["state"]]
    print(f"content credential: {verdict}")
    print(f"  made with {told['generator']!r:.80}, signed by {told['signer']!r:.80}")
    print(f"  says that the picture is synthetic: {'yes' if told['synthetic'] else 'no'}")


COMMANDS: dict[str, Callable[[argparse.Namespace], bool]] = {
    "inspect": inspect_pictures,
    "replay": replay_picture,
    "verify": verify_pictures,
}


def run(arguments: list[str]) -> bool:
    """Parse and run one of the commands; false where something is not as it was."""
    options = build_parser().parse_args(arguments)
    return COMMANDS[options.command](options)
