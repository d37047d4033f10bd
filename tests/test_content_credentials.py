from __future__ import annotations

import base64
import json
import sys
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.certificates import PEM, Files, PrivateKey, write_files
from voice2face import Portraits, Voice2FacePipeline
from voice2face.cli import main
from voice2face.content_credentials import (
    CREDENTIAL_BOX,
    UNTRUSTED,
    Credential,
    Signer,
    read_credential,
    summary,
)
from voice2face.errors import CredentialError
from voice2face.picture_files import SYNTHETIC_SOURCE
from voice2face.replay import read_portrait
from voice2face.watermark import detect


def actions_of(*sources: list[str | None]) -> list[dict[str, Any]]:
    return [
        {"label": "c2pa.actions", "data": {"actions": [{"digitalSourceType": one} for one in some]}}
        for some in sources
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("keys"), ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="module")
def portraits(pipeline: Voice2FacePipeline) -> Portraits:
    speech = Path(__file__).parent.parent / "examples" / "speech" / "female.flac"
    return pipeline(speech, num_images=2, seed=4, num_inference_steps=3)


@pytest.fixture(scope="module")
def signed(files: Files, portraits: Portraits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    signer = Signer(files.certificates, files.key)
    return portraits[0].save(tmp_path_factory.mktemp("signed") / "face.png", signer=signer)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_signed_picture_says_that_it_is_synthetic_and_keeps_its_marks(
    files: Files, portraits: Portraits, tmp_path: Path, ending: str
) -> None:
    signer = Signer(files.certificates, files.key)
    path = portraits[0].save(tmp_path / f"face.{ending}", signer=signer)
    assert read_credential(path) == Credential(
        "valid", f"voice2face {portraits[0].provenance.version}", "Studio", True, ()
    )
    assert read_credential(path, trust=files.root).state == "trusted"
    with Image.open(path) as image:
        marks = image.info["xmp"]
        assert SYNTHETIC_SOURCE in (marks if isinstance(marks, str) else marks.decode())
        assert detect(image).answer == "yes"
    assert [other.name for other in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["png", "jpg", "webp"])
def test_bytes_are_signed_as_files_are(
    files: Files, portraits: Portraits, tmp_path: Path, name: str
) -> None:
    path = tmp_path / f"sent.{name}"
    path.write_bytes(portraits[0].encode(name, signer=Signer(files.certificates, files.key)))
    assert read_credential(path, trust=files.root).state == "trusted"


def test_a_signed_png_still_tells_how_it_was_made(signed: Path, portraits: Portraits) -> None:
    saved = read_portrait(signed)
    assert saved.seed == 4
    assert saved.settings == portraits[0].settings
    assert saved.provenance == portraits[0].provenance
    np.testing.assert_array_equal(saved.pixels, np.asarray(portraits[0].image))


def test_files_in_the_home_folder_are_found(
    signed: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(files.key.parent))
    monkeypatch.setenv("USERPROFILE", str(files.key.parent))
    picture = files.key.with_name("face.png")
    picture.write_bytes(signed.read_bytes())
    Signer("~/chain.pem", "~/key.pem")
    assert read_credential("~/face.png", trust="~/root.pem").state == "trusted"


CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({}, ("unknown", "unknown", False)),
        (
            {"claim_generator": "cam/1", "signature_info": {"issuer": "Maker"}},
            ("cam/1", "Maker", False),
        ),
        ({"claim_generator_info": [{"name": "cam", "version": "2"}]}, ("cam 2", "unknown", False)),
        ({"assertions": actions_of([CAPTURE])}, ("unknown", "unknown", False)),
        (
            {"assertions": actions_of([CAPTURE], [SYNTHETIC_SOURCE, None])},
            ("unknown", "unknown", True),
        ),
        ({"assertions": [{"label": "stds.exif", "data": "f/2"}]}, ("unknown", "unknown", False)),
    ],
)
def test_credentials_of_other_programs_are_read(
    manifest: dict[str, Any], expected: tuple[str, str, bool]
) -> None:
    found = {"active_manifest": "this", "manifests": {"this": manifest, "older": {}}}
    statuses = [{"code": UNTRUSTED}, {"code": "assertion.missing"}]
    told = summary(found | {"validation_state": "Invalid", "validation_status": statuses})
    assert told == Credential("invalid", *expected, ("assertion.missing",))


def test_it_says_nothing_of_the_speaker_and_holds_no_key(
    signed: Path, files: Files, portraits: Portraits
) -> None:
    import c2pa

    with c2pa.Reader(str(signed)) as reader:
        manifest = reader.get_active_manifest()
    (assertion,) = manifest["assertions"]
    (action,) = assertion["data"]["actions"]
    assert action == {"action": "c2pa.created", "digitalSourceType": SYNTHETIC_SOURCE}
    assert "title" not in manifest
    assert "thumbnail" not in manifest
    assert portraits[0].provenance.audio_sha256 not in str(manifest)
    assert files.key.read_bytes().split(b"\n")[1] not in signed.read_bytes()


def test_several_pictures_are_signed(files: Files, portraits: Portraits, tmp_path: Path) -> None:
    paths = portraits.save(tmp_path / "face.png", signer=Signer(files.certificates, files.key))
    assert [read_credential(path).state for path in paths] == ["valid", "valid"]
    assert read_credential(portraits[0].save(tmp_path / "plain.png")) is None


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-384", "P-521", "RSA", "Ed25519"],
)
def test_kinds_of_keys(key: PrivateKey, portraits: Portraits, tmp_path: Path) -> None:
    files = write_files(tmp_path, key)
    signer = Signer(files.certificates, files.key)
    path = portraits[0].save(tmp_path / "face.png", signer=signer)
    assert read_credential(path, trust=files.root).state == "trusted"


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An address on this machine where nothing is found, and what was asked for there."""
    asked = []

    class Refuse(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_error(404)

        do_GET = do_POST = refuse

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as refusing:
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{refusing.server_port}", asked
        refusing.shutdown()


def test_a_timestamp_is_asked_for_only_if_named(
    server: tuple[str, list[str]], files: Files, portraits: Portraits, tmp_path: Path
) -> None:
    url, asked = server
    stamping = Signer(files.certificates, files.key, timestamp_url=f"{url}/stamp")
    with pytest.raises(CredentialError, match="answer of the timestamp authority"):
        portraits[0].save(tmp_path / "face.png", signer=stamping)
    assert set(asked) == {"POST /stamp"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("more", [b"", CREDENTIAL_BOX])
def test_credentials_that_lie_elsewhere_are_not_fetched(
    server: tuple[str, list[str]], files: Files, tmp_path: Path, more: bytes
) -> None:
    import c2pa

    url, asked = server
    marks = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" '
        f'dcterms:provenance="{url}/face.c2pa"/></rdf:RDF></x:xmpmeta>'
    )
    path = tmp_path / "face.jpg"
    Image.new("RGB", (64, 64)).save(path, xmp=marks.encode())
    with pytest.raises(c2pa.C2paError):
        c2pa.Reader(str(path))
    assert asked == ["GET /face.c2pa"], "the library by itself would fetch it"
    path.write_bytes(path.read_bytes() + more)
    if more:
        for trust in (None, files.root):
            with pytest.raises(CredentialError, match="must fetch remote"):
                read_credential(path, trust=trust)
    else:
        assert read_credential(path) is None
    assert len(asked) == 1


def with_another_seed(png: bytes) -> bytes:
    chunk = b"tEXtvoice2face:seed\x00"
    forged = chunk + b"5"
    old = chunk + b"4"
    place = png.index(old)
    checksum = zlib.crc32(forged).to_bytes(4, "big")
    return png[:place] + forged + checksum + png[place + len(old) + 4 :]


def test_a_changed_picture_is_found_out(signed: Path, tmp_path: Path) -> None:
    changed = tmp_path / "face.png"
    changed.write_bytes(with_another_seed(signed.read_bytes()))
    assert read_portrait(changed).seed == 5
    credential = read_credential(changed)
    assert credential.state == "invalid"
    assert credential.problems == ("assertion.dataHash.mismatch",)
    saved_again = tmp_path / "again.png"
    with Image.open(signed) as image:
        image.save(saved_again)
    assert read_credential(saved_again) is None


def test_the_command_tells(
    signed: Path,
    files: Files,
    portraits: Portraits,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(["verify", str(signed)]) == 0
    printed = capsys.readouterr().out
    assert "content credential: the signature is valid, but nobody vouches" in printed
    assert "signed by 'Studio'" in printed
    assert "synthetic: yes" in printed
    assert main(["verify", "--json", str(signed)]) == 0
    told = json.loads(capsys.readouterr().out)["content_credential"]
    assert (told["state"], told["signer"], told["synthetic"]) == ("valid", "Studio", True)
    assert main(["verify", str(signed), "--trust", str(files.root)]) == 0
    assert "valid and its certificate trusted" in capsys.readouterr().out
    assert main(["verify", str(signed), "--trust", str(tmp_path / "no.pem")]) == 1
    assert "no.pem cannot be read" in capsys.readouterr().err

    assert main(["verify", str(portraits[0].save(tmp_path / "plain.png"))]) == 0
    assert "content credential" not in capsys.readouterr().out
    changed = tmp_path / "changed.png"
    changed.write_bytes(with_another_seed(signed.read_bytes()))
    assert main(["verify", str(changed)]) == 0
    assert "NOT VALID: assertion.dataHash.mismatch" in capsys.readouterr().out

    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert main(["verify", str(signed)]) == 0
    assert "pip install 'voice2face[c2pa]'" in capsys.readouterr().out
    with pytest.raises(CredentialError, match="pip install"):
        Signer(files.certificates, files.key)


def encrypted(key: PrivateKey) -> bytes:
    locked = serialization.BestAvailableEncryption(b"secret")
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, locked)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"no key", "not a PEM certificate and its unencrypted PEM key"),
        (bytes(2 << 20), "is over 1 MiB"),
        (encrypted(ec.generate_private_key(ec.SECP256R1())), "unencrypted"),
        ("another", "not that of the first certificate"),
    ],
)
def test_wrong_keys_are_refused_before_anything_is_drawn(
    files: Files, tmp_path: Path, content: bytes | str | None, message: str
) -> None:
    key = tmp_path / "key.pem"
    if content == "another":
        write_files(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    elif content is not None:
        key.write_bytes(content)
    with pytest.raises(CredentialError, match=message):
        Signer(files.certificates, key)


def test_curves_that_c2pa_does_not_know_are_refused(tmp_path: Path) -> None:
    files = write_files(tmp_path, ec.generate_private_key(ec.SECP256K1()))
    with pytest.raises(CredentialError, match="use a key on P-256"):
        Signer(files.certificates, files.key)
    plain = (
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(*plain)
    p_256, prime239v1 = (bytes.fromhex(f"2a8648ce3d03010{last}") for last in "74")
    body = base64.encodebytes(key.replace(p_256, prime239v1)).decode()
    files.key.write_text(f"-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n")
    with pytest.raises(CredentialError, match=r"not supported; use a key on P-256"):
        Signer(files.certificates, files.key)


def test_certificates_of_no_use_leave_no_file(portraits: Portraits, tmp_path: Path) -> None:
    expired = write_files(tmp_path, ec.generate_private_key(ec.SECP256R1()), days_left=-5)
    with pytest.raises(CredentialError, match="certificate in force"):
        portraits[0].save(tmp_path / "face.png", signer=Signer(expired.certificates, expired.key))
    assert not list(tmp_path.glob("*face*"))


def test_what_cannot_be_read_is_named(
    signed: Path, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CredentialError, match=r"face\.png cannot be read"):
        read_credential(tmp_path / "face.png")
    with pytest.raises(CredentialError, match="cannot be read"):
        read_credential("a\0b.png")
    for trust in (signed, files.key):
        with pytest.raises(CredentialError, match="no PEM file of certificates to trust"):
            read_credential(signed, trust=trust)
    monkeypatch.setattr("c2pa.Reader.json", lambda _: "{}")
    with pytest.raises(CredentialError, match="the content credential is damaged"):
        read_credential(signed)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(offset=st.integers(0, 12_000), values=st.binary(min_size=1, max_size=8))
def test_damaged_credentials_cannot_say_anything_else(
    signed: Path, tmp_path: Path, offset: int, values: bytes
) -> None:
    data = signed.read_bytes()
    place = data.index(CREDENTIAL_BOX) + offset
    damaged = data[:place] + values + data[place + len(values) :]
    path = tmp_path / "face.png"
    path.write_bytes(damaged)
    try:
        credential = read_credential(path)
    except CredentialError:
        return
    if credential is not None and credential != read_credential(signed):
        assert credential.state == "invalid"
        assert credential.problems
