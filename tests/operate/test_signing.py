"""Keys are made as the docstring says, with openssl."""

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import UsageError
from workbench.operate import signing


def make_keys(folder: Path) -> tuple[Path, Path]:
    commands = [line.strip().split("#")[0] for line in str(signing.__doc__).splitlines() if "openssl e" in line]
    assert len(commands) == 2
    for command in commands:
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder / "key.pem", folder / "key.pub"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def folder(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    """A signed one."""
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "model" / "variables" / "variables.index").write_bytes(b"numbers")
    signing.sign(tmp_path / "model", keys[0])
    return tmp_path / "model"


def test_a_signed_folder_is_right_wherever_it_is_and_whoever_checks(
    folder: Path, keys: tuple[Path, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    moved = folder.rename(folder.with_name("moved"))
    assert signing.check(moved, keys[1]) is None
    signing.sign(moved, keys[0])  # again, over the same files
    assert signing.check(moved, keys[1]) is None
    assert capfd.readouterr() == ("", "")
    verify = ["verify", "key", str(moved), "--signature", str(moved / "model.sig"), "--public_key", str(keys[1])]
    subprocess.run([sys.executable, "-m", "model_signing", *verify], check=True, capture_output=True)


def alter(folder: Path) -> None:
    (folder / "variables" / "variables.index").write_bytes(b"others")


def add(folder: Path) -> None:
    (folder / "more.md").touch()


def hide(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "config").touch()


def remove(folder: Path) -> None:
    (folder / "saved_model.pb").unlink()


def link(folder: Path) -> None:
    (folder / "card.md").symlink_to("/etc/passwd")


def cut(folder: Path) -> None:
    (folder / "model.sig").write_bytes((folder / "model.sig").read_bytes()[:-9])


def forge(folder: Path) -> None:
    signature = json.loads((folder / "model.sig").read_text())
    signature["verificationMaterial"]["publicKey"]["hint"] = ""
    signature["dsseEnvelope"]["payload"] = signature["dsseEnvelope"]["payload"][::-1]
    (folder / "model.sig").write_text(json.dumps(signature))


def unsign(folder: Path) -> None:
    (folder / "model.sig").unlink()
    (folder / "model.sig").mkdir()
    (folder / "model.sig" / "hidden.md").touch()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (alter, "Hash mismatch for 'variables/variables.index'"),
        (add, "Extra files found in model 'model': more.md"),
        (hide, "Extra files found in model 'model': .git/config"),
        (remove, "Missing files in model 'model': saved_model.pb"),
        (link, "card.md' because it is a symlink"),
        (cut, "is not what was signed"),
        (forge, "is not "),
        (unsign, "is not signed: it has no model.sig"),
    ],
)
def test_any_change_is_told(
    folder: Path,
    keys: tuple[Path, Path],
    change: Callable[[Path], None],
    reason: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    change(folder)
    assert reason in str(signing.check(folder, keys[1]))
    assert capfd.readouterr() == ("", "")


def test_another_key_is_told(folder: Path, tmp_path: Path) -> None:
    _, other = make_keys(tmp_path)
    assert signing.check(folder, other) == f"{folder} is not signed with {other}"


def test_a_signature_that_leaves_files_out_is_told(folder: Path, keys: tuple[Path, Path]) -> None:
    import model_signing

    (folder / "more.md").touch()
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=["model.sig", "more.md"], ignore_git_paths=False)
    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=keys[0]).set_hashing_config(hashing)
    config.sign(folder, folder / "model.sig")
    assert signing.check(folder, keys[1]) == f"{folder} is signed without its more.md"


def test_a_folder_with_links_cannot_be_signed(folder: Path, keys: tuple[Path, Path]) -> None:
    link(folder)
    with pytest.raises(UsageError, match=r"cannot be signed: .* symlink"):
        signing.sign(folder, keys[0])
    with pytest.raises(UsageError, match="got no folder"):
        signing.sign(folder / "model.sig", keys[0])


def test_texts(keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    signature = signing.sign_text("grün", private)
    assert signing.check_text("grün", signature, public)
    assert not signing.check_text("grau", signature, public)
    assert not signing.check_text("grün", "no base64", public)
    assert not signing.check_text("grün", signature[:-8], public)
    assert not signing.check_text("grün", signature, make_keys(tmp_path)[1])


def test_keys_that_are_none_are_refused_with_the_way_to_make_one(keys: tuple[Path, Path], tmp_path: Path) -> None:
    def refused(path: Path, reason: str, use: Callable[[str, Path], Any] = signing.sign_text) -> None:
        with pytest.raises(UsageError, match=f"{path.name}: {reason}.*openssl ecparam"):
            use("text", path)

    def check(text: str, path: Path) -> bool:
        return signing.check_text(text, "", path)

    refused(tmp_path / "none.pem", "cannot be read: No such file")
    refused(keys[1], "is no private key")
    refused(keys[0], "is no public key", check)
    for name, command in {
        "locked.pem": f"openssl ec -in {keys[0]} -aes256 -passout pass:secret -out locked.pem",
        "ed.pem": "openssl genpkey -algorithm ed25519 -out ed.pem",
        "k1.pem": "openssl ecparam -name secp256k1 -genkey -noout -out k1.pem",
    }.items():
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
        refused(tmp_path / name, "is encrypted" if name == "locked.pem" else "got a key of (Ed25519|secp256k1)")


def test_without_the_package_its_name_is_told(keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install "workbench\[sign\]"'):
        signing.sign_text("text", keys[0])
    assert shutil.which("openssl")
