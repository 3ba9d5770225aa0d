import ast
import base64
import html
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import nbformat
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from workbench.errors import GateError, UsageError
from workbench.run.mask import Mask
from workbench.run.params import contract, resolve
from workbench.run.scrub import _crc32c, _masked_crc, scrub
from workbench.run.secret import read_secret, secrets_of

CELL = """
from workbench import Secret
token: Secret = "SERVICE_TOKEN"  # key of the data service
other: Secret = "OTHER_TOKEN"
epochs: int = 5
"""
SECRET = "s3cr/t+\"va'l\\ue<é😀>"
MASK = Mask({"token": SECRET})


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_secret_is_what_the_named_variable_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", SECRET)
    monkeypatch.setenv("OTHER_TOKEN", "another")
    monkeypatch.setenv("NEW_TOKEN", "the new one")
    model = contract(CELL)
    assert read_secret("SERVICE_TOKEN") == SECRET
    assert secrets_of(model, resolve(model, {})) == {"token": SECRET, "other": "another"}
    assert secrets_of(model, resolve(model, {"other": "NEW_TOKEN"})) == {"token": SECRET, "other": "the new one"}
    assert secrets_of(contract("epochs: int = 5"), {"epochs": 5}) == {}


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_named_only_if_it_looks_like_one(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    for name in ("SERVICE_TOKEN", "hunter22"):
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="read_secret: SERVICE_TOKEN is not set"):
        read_secret("SERVICE_TOKEN")
    with pytest.raises(UsageError, match="not shown here") as error:
        read_secret("hunter22")
    assert "hunter" not in str(error.value)


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (None, "is not set"),
        ("", "is not set"),
        ("12345", "too short a secret; expected 6 characters or more"),
        ("  1234  ", "too short a secret"),
        ("hunter\udcff2", "bytes that are not UTF-8"),
    ],
)
def test_secrets_that_cannot_be_used_are_all_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, held: str | None, expected: str
) -> None:
    for name in ("SERVICE_TOKEN", "ghp_hunter22"):
        monkeypatch.delenv(name, raising=False)
        if held is not None:
            monkeypatch.setenv(name, held)
    model = contract(CELL)
    with pytest.raises(UsageError) as error:
        secrets_of(model, resolve(model, {"other": "ghp_hunter22"}))  # the secret itself, in place of a name
    _, first, second = str(error.value).splitlines()
    assert expected in first
    assert first.startswith("  token: SERVICE_TOKEN ")
    assert expected in second
    assert second.startswith("  other: the variable that was passed (not shown here")
    assert "hunter" not in str(error.value)
    assert "1234" not in str(error.value)


# --- text ------------------------------------------------------------------------------------------------------------

_anything = st.characters(exclude_categories=["Cs"], exclude_characters="~")
_secrets = st.text(_anything, min_size=6, max_size=20).filter(lambda s: len(s.strip()) >= 6)
_tricky = st.text("ab/+ \"'\\\n\r\t<&>%é😀\u2028", min_size=6, max_size=12).filter(lambda s: len(s.strip()) >= 6)
_around = st.text(_anything | st.sampled_from("\"'\\\n<&%"), max_size=12)

_WAYS: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "plain": (str, str),
    "json": (json.dumps, json.loads),
    "json unicode": (lambda text: json.dumps(text, ensure_ascii=False), json.loads),
    "json in json": (lambda text: json.dumps(json.dumps(text)), lambda text: json.loads(json.loads(text))),
    "repr": (repr, ast.literal_eval),
    "ascii": (ascii, ast.literal_eval),
    "repr of bytes": (lambda text: repr(text.encode()), lambda text: ast.literal_eval(text).decode()),
    "repr in json": (lambda text: json.dumps(repr(text)), lambda text: ast.literal_eval(json.loads(text))),
    "html": (html.escape, html.unescape),
    "html text": (lambda text: html.escape(text, quote=False), html.unescape),
    "url": (quote, unquote),
    "url part": (lambda text: quote(text, safe=""), unquote),
    "url query": (quote_plus, unquote_plus),
    "hex": (lambda text: text.encode().hex(), lambda text: text),
    "HEX": (lambda text: text.encode().hex().upper(), lambda text: text),
}


@pytest.mark.parametrize("way", _WAYS)
@given(_secrets | _tricky, _around, _around)
@example(SECRET, 'a "', "' b")
@example("'quoted'", '"', '"')
@example("\n\n\n1\n\n\n23456", "", "")
def test_no_form_of_a_secret_remains_and_what_is_around_it_does(way: str, secret: str, before: str, after: str) -> None:
    encode, decode = _WAYS[way]
    mask = Mask({"token": secret})
    assume(not {"&#", "&", ";"} & set(before + after) or not way.startswith("html"))  # html.unescape is no inverse
    assume(all(mask.text(encode(side)) == encode(side) for side in (before + "~", "~" + after)))
    masked = mask.text(encode(f"{before}~{secret}~{after}"))
    if way.lower() == "hex":
        masked = masked.lower()
        assert masked == f"{before}~".encode().hex() + "***token***" + f"~{after}".encode().hex()
    else:
        assert decode(masked) == f"{before}~***token***~{after}"
    assert mask.text(masked) == masked


@given(_secrets | _tricky, st.binary(max_size=80), st.binary(max_size=80), st.booleans(), st.integers(0, 3))
@example("hunter", b"", b"", False, 0)
@example("hunter", b"a", b"b", False, 0)
@example("hunter", b"ab", b"", False, 0)
@example("hunter" * 40, b"ab", b"c" * 60, False, 3)
def test_no_base64_of_a_secret_remains(secret: str, before: bytes, after: bytes, urlsafe: bool, layout: int) -> None:
    mask, value = Mask({"token": secret}), secret.encode()
    assume(value not in before + after)
    data = before + value + after
    text = (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(data).decode()
    if layout:  # lines of 76; as JSON writes them; as JSON in JSON
        text = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
        text = [text, json.dumps(text), json.dumps(json.dumps(text))][layout - 1]
    masked = mask.text(text)
    assert masked.count("***token***") == 1
    kept = masked.replace("***token***", "")
    breaks = ("\n", "\\n", "\\\\n")[max(layout - 1, 0)]
    left, right = (part.replace(breaks, "").strip('\\"') for part in masked.split("***token***"))
    whole = (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(data).decode()
    # Not a bit of the secret is left, and every character that is not the secret's, even in part.
    assert left == whole[: 8 * len(before) // 6]
    assert right == whole[-(-8 * len(before + value) // 6) :]
    assert mask.text(kept) == kept


def test_base64_of_a_secret_alone_or_in_a_login_is_found() -> None:
    assert MASK.text(base64.b64encode(SECRET.encode()).decode().rstrip("=")) == "***token***"
    login = base64.b64encode(b"user:" + SECRET.encode()).decode()
    assert MASK.text(f"Authorization: Basic {login}") == "Authorization: Basic dXNlcj***token***=="


def test_a_cut_piece_of_base64_takes_no_character_of_its_quotes_with_it() -> None:
    for offset in range(3):
        piece = base64.b64encode(bytes(offset) + SECRET.encode())[offset + (offset > 0) :].decode()[:-4]
        for written in (json.dumps(piece), json.dumps(f"\n{piece}\n")):
            assert SECRET[:6] not in json.loads(MASK.text(written))


def test_overlapping_secrets_leave_nothing_of_each_other() -> None:
    mask = Mask({"short": "hunter22", "long": "hunter22-and-more", "tail": "and-more-yet", "same": "hunter22"})
    assert mask.text("hunter22, hunter22-and-more") == "***short***, ***long***"
    assert mask.text("hunter22-and-more-yet!") == "***long***!"
    assert mask.text("hunter22hunter22") == "***short******short***"
    assert Mask({"a": "aaaaaa"}).text("b" + "a" * 100 + "b") == "b***a***b"


def test_a_key_of_many_lines_is_found_line_by_line() -> None:
    mask = Mask({"key": "-----BEGIN KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END KEY-----\n"})
    assert mask.text("   MIIEvQIBADAN\n> BgkqhkiG9w0B") == "   ***key***\n> ***key***"
    assert mask.text("-----BEGIN KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END KEY-----") == "***key***"
    assert Mask({"key": " hunter22\n"}).text("[hunter22]") == "[***key***]"  # a program strips what a file ended with


def test_a_mask_without_secrets_is_false_and_touches_nothing(tmp_path: Path) -> None:
    mask, outputs = Mask({}), [{"text": "a"}]
    text = "some text"
    assert not mask
    assert mask.text(text) is text
    assert mask.node(outputs) is outputs
    scrub(tmp_path / "missing", mask)


def test_a_mask_shows_names_only() -> None:
    assert MASK
    assert (repr(MASK), str(MASK)) == ("Mask(token)", "Mask(token)")


def test_text_without_a_secret_comes_back_as_it_is() -> None:
    text = "loss 0.5 \ud800"  # a lone surrogate, as a kernel may send one
    assert MASK.text(text) is text
    assert MASK.text(f"{text} {SECRET}") == f"{text} ***token***"


def test_long_runs_of_one_character_take_no_time() -> None:
    found = base64.b64encode(b"aaaaaa").decode()
    mask = Mask({"token": "aaaaaa", "slashes": "\\" * 8})
    for character in "a\\\n":
        assert "aaaaaa" not in mask.text(character * 100_000 + found + character * 100_000)


def test_a_notebooks_outputs_are_masked_and_stay_notebook_nodes() -> None:
    page = f"<b>{html.escape(SECRET)}</b>"
    cell = nbformat.v4.new_code_cell(
        outputs=[
            nbformat.v4.new_output("stream", text=f"key {SECRET}\n"),
            nbformat.v4.new_output("display_data", data={"text/html": page, "application/json": {SECRET: [SECRET, 1]}}),
            nbformat.v4.new_output("error", ename="E", evalue=repr(SECRET), traceback=[f"\x1b[31m{SECRET}\x1b[0m"]),
        ]
    )
    cell.outputs = MASK.node(cell.outputs)
    assert cell.outputs[0].text == "key ***token***\n"
    assert cell.outputs[1].data == {
        "text/html": "<b>***token***</b>",
        "application/json": {"***token***": ["***token***", 1]},
    }
    assert (cell.outputs[2].evalue[1:-1], cell.outputs[2].traceback) == ("***token***", ["\x1b[31m***token***\x1b[0m"])
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))


# --- files -----------------------------------------------------------------------------------------------------------


def everything(folder: Path) -> bytes:
    return b"".join(path.name.encode() + path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_text_files_are_mended_and_others_left_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text(SECRET)
    run = tmp_path / "run"
    (run / "logs").mkdir(parents=True)
    (run / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "note": SECRET}) + "\n" + '{"epoch": 2}\n')
    log = run / "logs" / "kernel.log"
    log.write_bytes(f"GET /?key={quote(SECRET, safe='')}\r\n".encode())
    log.chmod(0o640)
    clean = run / "clean.json"
    clean.write_text("{}")
    (run / "clean.bin").write_bytes(b"\0\xff" + os.urandom(1000))
    (run / "link").symlink_to(outside)
    os.mkfifo(run / "pipe")
    node, binary = clean.stat(), (run / "clean.bin").read_bytes()

    scrub(run, MASK)

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"epoch": 1, "note": "***token***"}, {"epoch": 2}]
    assert log.read_bytes() == b"GET /?key=***token***\r\n"
    assert log.stat().st_mode & 0o777 == 0o640
    assert (clean.stat().st_ino, clean.stat().st_mtime_ns) == (node.st_ino, node.st_mtime_ns)
    assert (run / "clean.bin").read_bytes() == binary
    assert outside.read_text() == SECRET
    assert sorted(p.name for p in run.iterdir()) == ["clean.bin", "clean.json", "link", "logs", "metrics.jsonl", "pipe"]


def test_names_of_files_and_folders_are_mended(tmp_path: Path) -> None:
    for name in ("a-hunter22/hunter22.csv", "a-hunter22/***token***.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1,2")
    scrub(tmp_path, Mask({"token": "hunter22"}))
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.csv*"))
    assert names == ["a-***token***/***token***.csv", "a-***token***/***token***.csv_"]


def test_other_files_that_hold_a_secret_are_deleted_and_named(tmp_path: Path) -> None:
    mask = Mask({"token": "hunter22", "key": "opensesame"})
    export = tmp_path / "export"
    export.mkdir()
    (export / "x.bin").write_bytes(b"\0\xff hunter22 opensesame")
    (export / "wide.txt").write_text("hunter22", encoding="utf-16")
    (export / "hunter22.bin").write_bytes(b"\0hunter22")
    np.savez_compressed(export / "arrays.npz", vocabulary=np.array(["hunter22" * 9]), x=np.zeros(1000))
    np.savez_compressed(export / "clean.npz", x=np.zeros(1000))
    with zipfile.ZipFile(export / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps({"headers": ["opensesame"] * 20}))
    np.save(export / "names.npy", np.array(["a", "hunter22"]))
    (export / "damaged.zip").write_bytes((export / "clean.npz").read_bytes()[40:])
    (tmp_path / "notes.md").write_text("hunter22")

    with pytest.raises(GateError) as error:
        scrub(tmp_path, mask)

    assert sorted(str(error.value).splitlines()) == [
        f"export/{name} held the value of {held}; it was deleted, because only text can be mended: "
        "keep the secret out of what is saved"
        for name, held in [
            ("***token***.bin", "token"), ("arrays.npz", "token"), ("model.keras", "key"), ("names.npy", "token"),
            ("wide.txt", "token"), ("x.bin", "key and token"),
        ]
    ]  # fmt: skip
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["clean.npz", "damaged.zip", "export", "notes.md"]
    assert (tmp_path / "notes.md").read_text() == "***token***"
    scrub(tmp_path, mask)


def test_a_file_that_cannot_be_read_does_not_keep_the_others_from_being_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a-hunter22.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text("hunter22")
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name.startswith("a-"):
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(GateError, match=r"a-\*\*\*token\*\*\*.txt may hold a secret: Permission denied") as error:
        scrub(tmp_path, Mask({"token": "hunter22"}))
    assert "hunter22" not in str(error.value)
    assert [(tmp_path / name).read_text() for name in ("b.txt", "c.txt")] == ["***token***"] * 2


def test_the_checksum_is_castagnolis() -> None:
    # The vectors of RFC 3720, appendix B.4, and the customary one.
    assert _crc32c(b"123456789") == 0xE3069283
    assert _crc32c(bytes(32)) == 0x8A9136AA
    assert _crc32c(b"\xff" * 32) == 0x62A8AB43
    assert _crc32c(bytes(range(32))) == 0x46DD794E
    assert _crc32c(b"") == 0


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked_crc(length)) + data + struct.pack("<I", _masked_crc(data))


@pytest.mark.parametrize("torn", [b"", b"\x05", record(b"\0 hunter22")[:-5], record(b"\0 hunter22")[:-1], b"\xff" * 20])
def test_event_files_keep_their_length_and_a_torn_end(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "events.out.tfevents.1.host.v2"
    path.write_bytes(record(b"\0first") + record(b"\0key: hunter22!") + record(b"") + torn)
    scrub(tmp_path, Mask({"token": "hunter22"}))
    stars = b"*" * 8
    assert path.read_bytes() == (
        record(b"\0first") + record(b"\0key: " + stars + b"!") + record(b"") + torn.replace(b"hunter22", stars)
    )


def test_tensorboard_reads_a_mended_event_file(tmp_path: Path) -> None:
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        tf.summary.text("note", f"the key is {SECRET} in Straße", step=1)
        tf.summary.scalar("loss", 0.5, step=2)
        tf.summary.text("json", json.dumps({"key": SECRET}), step=3)
    (path,) = tmp_path.glob("*tfevents*")
    before = list(EventFileLoader(str(path)).Load())
    scrub(tmp_path, MASK)
    after = list(EventFileLoader(str(path)).Load())
    texts: dict[str, Any] = {v.tag: v.tensor for event in after for v in event.summary.value}
    stars = "*" * len(SECRET.encode())
    assert texts["note"].string_val[0].decode() == f"the key is {stars} in Straße"
    assert set(json.loads(texts["json"].string_val[0])["key"]) == {"*"}
    assert tf.make_ndarray(texts["loss"]) == 0.5
    assert [(event.step, event.wall_time) for event in after] == [(event.step, event.wall_time) for event in before]
    assert len(list(tf.data.TFRecordDataset(str(path)))) == len(before)  # which checks every checksum
    assert MASK.text(everything(tmp_path).decode("latin-1")) == everything(tmp_path).decode("latin-1")
