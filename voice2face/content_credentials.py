"""Content credentials (C2PA): a signed statement in a picture that a neural network made it.

The statement says that voice2face made the picture and that it is synthetic, and nothing of the
voice or its speaker. Certificate and key are the user's own; the package has none. No connection
is opened unless a timestamp is asked for. Needs the extra ``c2pa``.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, cast

from voice2face import __version__
from voice2face.errors import CredentialError
from voice2face.paths import expanded
from voice2face.picture_files import LARGEST_PICTURE_BYTES, SOFTWARE, SYNTHETIC_SOURCE

CREDENTIAL_BOX = b"jumdc2pa"  # how the box begins that holds a picture's credentials
UNTRUSTED = "signingCredential.untrusted"
CERTIFICATE = "-----BEGIN CERTIFICATE-----"
LARGEST_PEM_BYTES = 1 << 20
KNOWN_KEYS = "use a key on P-256, P-384, P-521 or Ed25519, or of RSA"
CURVE_ALGORITHMS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
MANIFEST = {
    "claim_generator_info": [{"name": SOFTWARE, "version": __version__}],
    "assertions": [
        {
            "label": "c2pa.actions",
            "data": {
                "actions": [{"action": "c2pa.created", "digitalSourceType": SYNTHETIC_SOURCE}]
            },
        }
    ],
}


@dataclass(frozen=True)
class Credential:
    """What a picture's newest content credential says, and whether to believe it.

    Attributes:
        state: ``"trusted"``: unchanged, by a certificate that a trust anchor issued; ``"valid"``:
            unchanged, by a certificate that nobody vouches for; ``"invalid"``: changed since, or
            not signed properly.
        generator: program that made the statement, as it calls itself.
        signer: name in the certificate.
        synthetic: whether it says that a neural network made the picture.
        problems: C2PA's codes of what is wrong.
    """

    state: Literal["trusted", "valid", "invalid"]
    generator: str
    signer: str
    synthetic: bool
    problems: tuple[str, ...]


class Signer:
    """Signs pictures with the user's certificate.

    Args:
        certificates: PEM file of the signer's certificate, then of those that issued it. C2PA
            wants one for e-mail protection or document signing, and none that signed itself.
        key: PEM file of the certificate's private key, not encrypted: EC (P-256, P-384, P-521),
            RSA or Ed25519.
        timestamp_url: of an RFC 3161 timestamp authority, asked at every signing; none by default.

    Raises:
        CredentialError: a file cannot be read, the two don't belong together, or the extra is
            missing.
    """

    def __init__(
        self,
        certificates: str | os.PathLike[str],
        key: str | os.PathLike[str],
        *,
        timestamp_url: str | None = None,
    ) -> None:
        load_c2pa()
        self._certificates, self._key = read_pem(certificates), read_pem(key)
        self._algorithm = signing_algorithm(self._certificates, self._key, f"{certificates}, {key}")
        self._timestamp_url = timestamp_url

    def sign(self, picture: bytes, media_type: str) -> bytes:
        """Add a content credential to an encoded picture; all else in the file stays.

        Args:
            picture: PNG, JPEG or WebP.
            media_type: ``"image/png"``, ``"image/jpeg"`` or ``"image/webp"``.

        Raises:
            CredentialError: the certificate is of no use for this, or the timestamp authority
                did not answer.
        """
        c2pa = load_c2pa()
        information = c2pa.C2paSignerInfo(
            self._algorithm, self._certificates, self._key, self._timestamp_url
        )
        signed = io.BytesIO()
        try:
            with (
                c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}}) as context,
                c2pa.Builder(MANIFEST, context) as builder,
                c2pa.Signer.from_info(information) as signer,
            ):
                builder.sign(signer, media_type, io.BytesIO(picture), signed)
        except c2pa.C2paError as error:
            raise CredentialError(
                f"the picture cannot be signed: {error}; C2PA wants a certificate in force, issued "
                "by another one, for e-mail protection or document signing, and an answer of the "
                "timestamp authority if one was named"
            ) from error
        return signed.getvalue()


def read_credential(
    picture: str | os.PathLike[str], *, trust: str | os.PathLike[str] | None = None
) -> Credential | None:
    """Read the newest content credential that is embedded in a picture, and validate it.

    Args:
        picture: a file of any format.
        trust: PEM file of the certificates whose signers are trusted; none by default.

    Returns:
        ``None`` where there is no credential.

    Raises:
        CredentialError: a file or the credential cannot be read, or the extra is missing.
    """
    data = read_limited(picture, LARGEST_PICTURE_BYTES)
    if CREDENTIAL_BOX not in data:
        return None
    c2pa = load_c2pa()
    settings: dict[str, Any] = OFFLINE
    if trust is not None:
        anchors = read_pem(trust).decode("ascii", "replace")
        if CERTIFICATE not in anchors:
            raise CredentialError(f"{trust}: no PEM file of certificates to trust")
        settings = settings | {"trust": {"user_anchors": anchors}}
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(None, io.BytesIO(data), context=context) as reader,
        ):
            return summary(json.loads(reader.json()))
    except (c2pa.C2paError, KeyError) as error:
        raise CredentialError(
            f"{picture}: the content credential is damaged, or the certificates to trust are: "
            f"{error}"
        ) from error


def summary(found: dict[str, Any]) -> Credential:
    """What matters of a C2PA report."""
    manifest = found["manifests"][found["active_manifest"]]
    generator = (manifest.get("claim_generator_info") or [{}])[0]
    generator_name = generator.get("name") or manifest.get("claim_generator") or "unknown"
    actions = [
        action
        for assertion in manifest.get("assertions", [])
        if assertion["label"].startswith("c2pa.actions")
        for action in assertion["data"].get("actions", [])
    ]
    signature = manifest.get("signature_info") or {}
    return Credential(
        cast(Literal["trusted", "valid", "invalid"], found["validation_state"].lower()),
        f"{generator_name} {generator.get('version', '')}".strip(),
        signature.get("common_name") or signature.get("issuer") or "unknown",
        any(action.get("digitalSourceType") == SYNTHETIC_SOURCE for action in actions),
        tuple(
            status["code"]
            for status in found.get("validation_status", [])
            if status["code"] != UNTRUSTED
        ),
    )


def signing_algorithm(certificates: bytes, key: bytes, files: str) -> str:
    """C2PA's name for how this key signs.

    Raises:
        CredentialError: not PEM, encrypted, of another kind, or not the first certificate's key.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(key, None)
        public = x509.load_pem_x509_certificates(certificates)[0].public_key()
    except UnsupportedAlgorithm as error:
        raise CredentialError(f"{files}: {error}; {KNOWN_KEYS}") from error
    except (ValueError, TypeError) as error:
        raise CredentialError(
            f"{files}: not a PEM certificate and its unencrypted PEM key: {error}"
        ) from error
    if private.public_key() != public:
        raise CredentialError(f"{files}: the key is not that of the first certificate")
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in CURVE_ALGORITHMS:
        return CURVE_ALGORITHMS[private.curve.name]
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise CredentialError(f"{files}: {KNOWN_KEYS}")


def read_pem(file: str | os.PathLike[str]) -> bytes:
    """Read a PEM file.

    Raises:
        CredentialError: it is missing or too large.
    """
    return read_limited(file, LARGEST_PEM_BYTES)


def read_limited(file: str | os.PathLike[str], most_bytes: int) -> bytes:
    """Read a file of at most so many bytes.

    Raises:
        CredentialError: it is missing or larger.
    """
    path = expanded(file)
    try:
        if path.stat().st_size > most_bytes:
            raise CredentialError(f"{path} is over {most_bytes >> 20} MiB; name the right file")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # the latter of a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise CredentialError(f"{path} cannot be read: {reason}") from error


def load_c2pa() -> ModuleType:
    """Import the C2PA library.

    Raises:
        CredentialError: it is not installed.
    """
    try:
        import c2pa
    except ImportError as error:
        raise CredentialError(
            "content credentials need the C2PA library: pip install 'voice2face[c2pa]'"
        ) from error
    return c2pa
