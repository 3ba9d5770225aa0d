"""Who made this folder, and is it still what they made? `pip install "workbench[sign]"`.

    sign(folder, Path("key.pem"))       # writes folder/model.sig
    check(folder, Path("key.pub"))      # None: signed with that key, and not a byte is other; else the reason

    openssl ecparam -name prime256v1 -genkey -noout -out key.pem      # for who signs, and nobody else
    openssl ec -in key.pem -pubout -out key.pub                       # for everybody who checks

model.sig is what OpenSSF's model-signing writes, and its command checks it, too: `model_signing verify key FOLDER
--signature FOLDER/model.sig --public_key key.pub`. It holds every file's hash, git's own files included, and
knows nothing of empty folders. Nothing is asked of the network.

With WORKBENCH_SIGNING_KEY=key.pem what is registered is signed; with WORKBENCH_PUBLIC_KEY=key.pub nothing is
registered, promoted or gone back to that is not signed so.
"""

import base64
import contextlib
import importlib.util
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from workbench import context, files
from workbench.errors import UsageError

SIGNATURE = "model.sig"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_MAKE = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem; openssl ec -in key.pem -pubout -out key.pub"


def private_key() -> Path | None:
    """The key to sign with, if WORKBENCH_SIGNING_KEY names one."""
    text = context.variable("WORKBENCH_SIGNING_KEY")
    return Path(text) if text else None


def public_key() -> Path | None:
    """The key to check with, if WORKBENCH_PUBLIC_KEY names one."""
    text = context.variable("WORKBENCH_PUBLIC_KEY")
    return Path(text) if text else None


def sign(folder: Path, key: Path) -> None:
    """Write model.sig over all other files in `folder`, with the private key.

    Raises UsageError for a key that is none, and for a folder that cannot be signed: one with links in it.
    """
    _private(key)
    import model_signing

    if not folder.is_dir():
        raise UsageError(f"{folder}: got no folder; expected one to sign")
    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(_all_files())
    with tempfile.TemporaryDirectory() as outside:
        signature = Path(outside, SIGNATURE)
        try:
            config.sign(folder, signature)
        except ValueError as reason:
            raise UsageError(f"{folder}: cannot be signed: {reason}") from reason
        files.write_bytes(folder / SIGNATURE, signature.read_bytes())


def check(folder: Path, key: Path) -> str | None:
    """None if model.sig was made with this public key's private one, for just these files; else the reason.

    Raises UsageError for a key that is none.
    """
    _public(key)
    import model_signing

    signature = folder / SIGNATURE
    if signature.is_symlink() or not signature.is_file():  # of a folder, all that is in it would be left out
        return f"{folder} is not signed: it has no {SIGNATURE}"
    config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=key)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of older signatures
            config.set_hashing_config(_all_files()).verify(folder, signature)
        left_out = _left_out(signature)
    except Exception as reason:  # of a forged model.sig, anything: its readers expect an honest one
        if "InvalidSignature" in type(reason).__name__ or "Key mismatch" in str(reason):
            return f"{folder} is not signed with {key}"
        said = re.sub(r": Expected 'Digest\(.*?Actual 'Digest\(.*?\)'", "", str(reason)) or type(reason).__name__
        return f"{folder} is not what was signed: {said}"
    return f"{folder} is signed without its {', '.join(left_out)}" if left_out else None


def _left_out(signature: Path) -> list[str]:
    """Files that a signature says not to cover; another program can write such ones."""
    envelope = json.loads(signature.read_text(encoding="utf-8"))["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    return sorted(set(statement["predicate"]["serialization"].get("ignore_paths", [])) - {SIGNATURE})


def sign_text(text: str, key: Path) -> str:
    """The signature of a text, as base64."""
    private = _private(key)
    return base64.b64encode(private.sign(text.encode(), _ecdsa())).decode()


def check_text(text: str, signature: str, key: Path) -> bool:
    """Whether `sign_text` gave that signature for this text, with this public key's private one."""
    public = _public(key)
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(base64.b64decode(signature, validate=True), text.encode(), _ecdsa())
    except (InvalidSignature, ValueError):
        return False
    return True


def _all_files() -> Any:
    import model_signing

    return model_signing.hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _ecdsa() -> Any:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.ECDSA(hashes.SHA256())


def _private(path: Path) -> Any:
    return _key(path, "private")


def _public(path: Path) -> Any:
    return _key(path, "public")


def _key(path: Path, kind: str) -> Any:
    """The key in a PEM file. Raises UsageError, with the way to make one, for anything else."""
    if not all(map(importlib.util.find_spec, ("model_signing", "cryptography", "OpenSSL"))):
        raise UsageError('signing needs model-signing; install it with pip install "workbench[sign]"')
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    expected = f"expected an EC {kind} key as PEM, made with: {_MAKE}"
    try:
        content = path.read_bytes()
    except OSError as reason:
        raise UsageError(f"{path}: cannot be read: {reason.strerror}; {expected}") from reason
    try:
        if kind == "private":
            key: Any = serialization.load_pem_private_key(content, None)
        else:
            key = serialization.load_pem_public_key(content)
    except TypeError as reason:
        raise UsageError(f"{path}: is encrypted; {expected}, without a password") from reason
    except (ValueError, UnsupportedAlgorithm) as reason:
        raise UsageError(f"{path}: is no {kind} key; {expected}") from reason
    curve = getattr(getattr(key, "curve", None), "name", type(key).__name__)
    if curve not in _CURVES:
        raise UsageError(f"{path}: got a key of {curve}; {expected}, or of {' or '.join(_CURVES[1:])}")
    return key
