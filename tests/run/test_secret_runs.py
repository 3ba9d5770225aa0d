"""Whatever a notebook does with a secret, its run does not show it: not its files, not the terminal.

Ten secrets leak in all the ways that we know from a real `workbench run`. Then every byte under outputs/, and what the
command has printed, is searched for them, by a detector that decodes what it finds and knows nothing of the mask. The
same notebook with the same values in plain parameters shows that the detector finds them.
"""

import base64
import html
import json
import os
import random
import re
import shlex
import signal
import string
import subprocess
import sys
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import nbformat
import pytest
import yaml
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from workbench.cli import main
from workbench.errors import UsageError
from workbench.run import launch
from workbench.run.launch import close_with
from workbench.run.mask import Mask
from workbench.run.runs import create_run, find_runs, read_record, start_run
from workbench.run.scrub import scrub

Command = Callable[..., subprocess.CompletedProcess[str]]
Write = Callable[..., Path]

_COMMAND = Path(sys.executable).parent / "workbench"


def _secrets() -> dict[str, str]:
    draw = random.Random(0)

    def mixed(length: int, others: str = "", alphabet: str = string.ascii_letters + string.digits) -> str:
        characters = [*others, *draw.choices(alphabet, k=length - len(others))]
        draw.shuffle(characters)
        return "".join(characters)

    long = mixed(32)
    return {
        "hex": mixed(40, alphabet=string.digits + "abcdef"),
        "base64": mixed(62, "++++////") + "==",
        "quotes": mixed(24, "''\"\"\\\\`$"),
        "markup": mixed(30, "<&>;<&>'\""),
        "percent": mixed(20, "%% ++?&#="),
        "unicode": mixed(16, "äé🔑", "äßéñ日本語🔑🔒ёжцabc"),
        "pem": "\n".join(["-----BEGIN-----", mixed(19, "+/"), mixed(19, "+/"), "-----END-----", ""]),
        "short": mixed(8),
        "prefix": long[:14],
        "long": long,
    }


_SECRETS = _secrets()
_VARIABLES = {f"WB_TEST_{name.upper()}": value for name, value in _SECRETS.items()}

# --- the detector ----------------------------------------------------------------------------------------------------


def _found_in(data: bytes) -> set[str]:
    """The names of the secrets that are in `data` in some form; a long one counts by its first 24 characters."""
    parts = {
        name: {part.strip()[:24].encode() for part in (s, *s.split("\n")) if len(part) >= 8}
        for name, s in _SECRETS.items()
    }
    found: set[str] = set()
    for view in _views(data):
        found |= {name for name, some in parts.items() if any(part in view for part in some)}
        if len(found) == len(_SECRETS):
            break
    return found


def _views(data: bytes) -> Iterator[bytes]:
    """`data`, and what it becomes by one and by two of the usual decodings, and by base64 and hex then."""
    level = {data, _joined_strings(data)}
    level |= {re.sub(rb"\x1b\[[\d;]*m|</?span[^>]*>", b"", one) for one in level}
    for depth in range(3):
        for one in level:
            yield one
            if depth < 2:
                yield from _binary(one)
        level = {decoded for one in level for decoded in _decoded(one)} if depth < 2 else set()


def _joined_strings(data: bytes) -> bytes:
    """The strings in a JSON file; the lines of one output as one."""

    def strings(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from (key, *strings(item))
        elif isinstance(value, list):
            yield from (
                ["".join(value)] if all(isinstance(v, str) for v in value) else (s for v in value for s in strings(v))
            )
        elif isinstance(value, str):
            yield value

    try:
        return "\n".join(strings(json.loads(data))).encode("utf-8", "surrogatepass")
    except ValueError:
        return data


def _decoded(data: bytes) -> Iterator[bytes]:
    text = data.decode("utf-8", "surrogateescape")
    yield html.unescape(text).encode("utf-8", "surrogateescape")
    yield unquote_to_bytes(data)
    yield unquote_to_bytes(data.replace(b"+", b" "))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python does not have
        yield data.decode("unicode_escape", "replace").encode("latin-1", "replace")  # \xc3\xa9 are bytes
        ascii_only = data.decode("utf-8", "replace").encode("ascii", "backslashreplace")
        characters = ascii_only.decode("unicode_escape", "replace")  # \u00e9 is a character, two may be a pair
        yield characters.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    for quote in (b"'\\''", b"'\"'\"'", b"''"):  # shells, YAML
        data = data.replace(quote, b"'")
    yield data.replace(b'""', b'"')  # CSV
    yield data.replace(b"\\", b"")


def _binary(data: bytes) -> Iterator[bytes]:
    urlsafe = bytes.maketrans(b"-_", b"+/")
    for text in (data, re.sub(rb"\s+", b"", data)):
        runs = [run.translate(urlsafe) for run in re.findall(rb"[\w+/-]{8,}", text)]
        for start in range(4):
            yield b"\n".join(base64.b64decode(run[start:] + b"A" * (-len(run[start:]) % 4)) for run in runs)
        digits = [run.decode() for run in re.findall(rb"[0-9a-fA-F]{12,}", text)]
        for start in range(2):
            yield b"\n".join(bytes.fromhex(run[start : start + (len(run) - start) // 2 * 2]) for run in digits)
    for code in ("utf-16-le", "utf-32-le"):
        for start in range(4):
            yield data[start:].decode(code, "ignore").encode()


def test_the_detector_knows_what_it_is_to_find() -> None:
    value = _SECRETS["markup"]
    forms = [value, json.dumps(value), repr(value), html.escape(value), value.encode().hex(), f"'{value!r}'"]
    forms += [base64.b64encode(b"x" * n + value.encode() + b"yz").decode() for n in range(4)]
    assert [_found_in(form.encode()) for form in forms] == [{"markup"}] * len(forms)
    assert not _found_in(value[:-10].encode().hex().encode())
    assert not _found_in(b"***s3***")


# --- the leaks -------------------------------------------------------------------------------------------------------

_IMPORTS = """
import base64, csv, html, json, logging, os, pprint, shlex, subprocess, sys, time, traceback, urllib.parse, warnings
import ipywidgets, numpy as np, pandas as pd, requests, rich, tensorflow as tf, yaml
import xml.etree.ElementTree as xml
import workbench as wb
from IPython.display import HTML, JSON, Code, Markdown, clear_output, display
from tensorboard.plugins.hparams import api as hparams
from xml.sax.saxutils import quoteattr
"""

_STREAMS = r"""
for v in values:
    print("key", v)
    print("key", v, file=sys.stderr)
    for start in range(0, len(v), 5):
        print(v[start:start + 5], end="", flush=True)
    print(end="\n" + v[:7], flush=True)
    print("between", file=sys.stderr, flush=True)
    print(v[7:], flush=True)
    for line in base64.encodebytes(b"ab" + v.encode() * 3).decode().splitlines():
        print(line, flush=True)
    print("\r" + v, end="", flush=True)
    print("\r" + v)
"""
_DESCRIPTORS = r"""
for v in values:
    os.write(1, v.encode() + b"\n")
    os.write(2, v.encode() + b"\n")
    subprocess.run(["bash", "-xc", 'echo "$1"; echo "$1" >&2; printf "%q\n" "$1"', "bash", v])
    !printf '%s\n' {shlex.quote(v)}
!env | grep WB_TEST_
time.sleep(0.3)
"""
_RESULTS = [
    "%env",
    "values",
    "{v: {'inner': [v, (v,)]} for v in values}",
    "[v.encode() for v in values]",
    "np.array(values), np.array([v.encode() for v in values]), tf.constant(values)",
]
_DISPLAYS = r"""
handles = [display("", display_id=True) for v in values]
for v, handle in zip(values, handles):
    display(HTML(f'<b title="{html.escape(v)}">{html.escape(v, False)}</b>'), Markdown(f"**{v}**"), JSON({v: [v, [v]]}))
    display(HTML(f'<p data-keys="{html.escape(json.dumps([v]))}"></p><script>key = {json.dumps(v)}</script>'))
    display({"application/x-own+json": {v: [v]}, "text/x-own": v, "text/plain": ""}, raw=True, metadata={"key": {v: v}})
    display(Code(f"key = {v!r}", language="python"))
    handle.update(v)
    print(v)
    clear_output(wait=True) if v is values[-1] else None
rich.print({"keys": values})
pprint.pprint({"keys": values})
"""
_TABLES = r"""
table = pd.DataFrame({"key": values}, index=values)
display(table, table.style)
pd.set_option("display.max_colwidth", None)
display(table)
print(table.to_string(), table.to_csv(), table.to_json(), table.to_json(force_ascii=False), table.to_html())
"""
_FORMS = r"""
for v in values:
    print(json.dumps(v), json.dumps(v, ensure_ascii=False), json.dumps(v).replace("/", r"\/").replace("<", r"\u003c"))
    print(repr(v), ascii(v), json.dumps(repr(v)), repr(json.dumps(v)), json.dumps({"a": json.dumps(v)}))
    print(html.escape(v), quoteattr(v), xml.tostring(xml.Element("a", key=v)).decode(), html.escape(json.dumps(v)))
    print(urllib.parse.quote(v), urllib.parse.quote(v, ""), urllib.parse.urlencode({"key": v, "json": json.dumps(v)}))
    print(requests.utils.requote_uri("https://host/?key=" + v), shlex.quote(v), yaml.safe_dump([v, [v, "x " * 50 + v]]))
    csv.writer(sys.stdout).writerow([v, v])
    tf.print(tf.constant([v]), output_stream=sys.stdout)
    data = v.encode()
    print(data.hex(), data.hex().upper(), data.hex(" "), yaml.safe_dump({"data": data * 3}))
    for size in range(4):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"~" * size + data).decode()
            print(text, text.rstrip("="), encode(b"~" * size + data + b"abc").decode(), urllib.parse.quote(text, ""))
    wrapped = base64.encodebytes(b"key: " + data * 3).decode()
    print(wrapped, json.dumps(wrapped), json.dumps(json.dumps(wrapped)), json.dumps(wrapped.splitlines()))
"""
_MESSAGES = r"""
logging.basicConfig()
for v in values:
    logging.warning("key %s", v)
    warnings.warn(v)
try:
    try:
        {}[values[0]]
    except KeyError as error:
        raise ValueError(" ".join(values)) from error
except ValueError:
    traceback.print_exc()
"""
_ERRORS = [
    "{}[tuple(values)]",
    "try: {}[tuple(values)]\nexcept KeyError as error: raise ValueError('\\n'.join(values)) from error",
    "%xmode Verbose\ndef use(keys, first): return keys['none'], first\nuse({v: v for v in values}, values[0])",
    "%xmode Context\nfor v in values: get_ipython().run_cell(f'key = {v!r}; 1 / 0')\nexec(f'x = {values!r} 1')",
    "subprocess.run(['false', *values], check=True)",
]
_WIDGETS = r"""
texts, output = [ipywidgets.Text(value=v, description=v) for v in values], ipywidgets.Output()
with output:
    print(*values)
    display(*values)
display(*texts, output)
"""
_FILES = r"""
for v in values:
    with open(run.path / "log.jsonl", "a") as file:
        file.write(json.dumps({"key": v, v: base64.encodebytes(v.encode() * 3).decode()}) + "\n")
    with open(run.path / "log.txt", "a") as file:
        print(v, repr(v), html.escape(v), urllib.parse.quote(v), base64.encodebytes(v.encode() * 3).decode(), file=file)
    (run.path / f"file {urllib.parse.quote(v, '')} x").write_text("x")
table.to_csv(run.path / "table.csv"), table.to_json(run.path / "table.json"), table.to_html(run.path / "table.html")
cells = [{"source": base64.encodebytes(v.encode() * 3).decode().splitlines(True)} for v in values]
(run.path / "cells.json").write_text(json.dumps(cells, indent=1))
None
"""
_BOARD = r"""
with tf.summary.create_file_writer(str(run.path / "tensorboard" / "own")).as_default():
    for v in values:
        tf.summary.text("note", "key " + v, step=1)
        tf.summary.text(v, json.dumps([v, base64.b64encode(b"a" + v.encode()).decode(), v.encode().hex()]), step=1)
        tf.summary.scalar("loss/" + v, 0.5, step=1)
    hparams.hparams({f"key {number}": v for number, v in enumerate(values)}, trial_id=values[0])
"""
_FINISH = "wb.finish_run(run, {f'accuracy {v}': 0.5 for v in values})"

_LEAKS = [
    _STREAMS,
    _DESCRIPTORS,
    *_RESULTS,
    _DISPLAYS,
    _TABLES,
    _FORMS,
    _MESSAGES,
    *_ERRORS,
    _WIDGETS,
    _FILES,
    _BOARD,
    _FINISH,
]


def _write_notebook(folder: Path, *cells: str, secret: bool = True) -> None:
    """nb.ipynb with `cells`, after one that reads the values: of Secrets, or of names that are just words."""
    names = [f"s{number}" for number in range(10)]
    annotation, read = ("Secret", "wb.read_secret") if secret else ("str", "os.environ.__getitem__")
    declared = [f'{name}: {annotation} = "{variable}"' for name, variable in zip(names, _VARIABLES, strict=True)]
    parameters = "\n".join(["from workbench import Secret", *declared] if secret else declared)
    before = ["import os, workbench as wb", parameters, f"values = [{read}(name) for name in ({', '.join(names)})]"]
    code = [nbformat.v4.new_code_cell(source.strip()) for source in (*before, *cells)]
    code[1].metadata["tags"] = ["parameters"]
    for cell in code:
        if cell.source in _ERRORS:
            cell.metadata["tags"] = ["raises-exception"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (folder / "environment.yml").touch()
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata={"kernelspec": kernel}), folder / "nb.ipynb")


def _leaks_of(folder: Path, done: subprocess.CompletedProcess[str]) -> dict[str, set[str]]:
    """Where which secrets are: in the name or the content of what is under outputs/, or what the command printed."""
    places = {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    for path in sorted((folder / "outputs").rglob("*")):
        name = path.relative_to(folder).as_posix()
        places[f"name of {name}"] = path.name.encode()
        places |= {f"{name} {member}": content for member, content in _contents(path)}
    return {place: found for place, data in places.items() if (found := _found_in(data))}


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_symlink():
        yield "link", os.readlink(path).encode()
    elif path.is_file():
        yield "", path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from ((member, archive.read(member)) for member in archive.namelist())


# --- a run in which everything leaks ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    folder: Path
    done: subprocess.CompletedProcess[str]

    @property
    def run(self) -> Path:
        (record,) = (self.folder / "outputs").rglob("run.json")
        return record.parent

    @property
    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.run / "run.json").read_text()))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, workbench: Command) -> dict[str, Outcome]:
    """The run whose parameters are Secrets, and the run whose parameters are not, of the same leaks."""
    found = {}
    for name in ("hidden", "plain"):
        folder = tmp_path_factory.mktemp(name)
        _write_notebook(folder, _IMPORTS, "run = wb.start_run('leaks', globals())", *_LEAKS, secret=name == "hidden")
        found[name] = Outcome(folder, workbench("run", "nb.ipynb", cwd=folder, **_VARIABLES))
        assert found[name].done.returncode == 0, found[name].done.stderr
    return found


def test_no_secret_is_left_of_all_the_leaks(outcomes: dict[str, Outcome]) -> None:
    hidden = outcomes["hidden"]
    assert _leaks_of(hidden.folder, hidden.done) == {}
    names = {path.name for path in hidden.run.rglob("*")}
    assert len(names) > 20
    assert {"log.jsonl", "log.txt", "table.csv", "table.json", "table.html", "cells.json", "kernel.log"} < names
    # What was around the secrets is there, and every file that was read by a program can be read.
    assert "key ***s0***\n" in hidden.done.stdout
    assert hidden.record["metrics"] == {f"accuracy ***s{number}***": 0.5 for number in range(10)}
    assert [list(json.loads(line)) for line in (hidden.run / "log.jsonl").read_text().splitlines()][1][0] == "key"
    json.loads((hidden.run / "table.json").read_text())
    json.loads((hidden.run / "cells.json").read_text())
    executed = nbformat.read(hidden.run / "notebook.ipynb", as_version=4)
    nbformat.validate(executed)
    assert len(executed.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]) > 20
    (events,) = (hidden.run / "tensorboard" / "own").iterdir()
    values = [value for event in EventFileLoader(str(events)).Load() for value in event.summary.value]
    assert len(values) == 31
    assert {value.tag[:5] for value in values} >= {"note", "loss/", "*****"}


def test_the_same_leaks_of_undeclared_values_are_found(outcomes: dict[str, Outcome]) -> None:
    plain = outcomes["plain"]
    cells = json.loads((plain.run / "notebook.ipynb").read_text())["cells"]
    leaking = [cell for cell in cells if cell["outputs"] and cell["source"]]
    assert [len(_found_in(json.dumps(cell["outputs"]).encode())) for cell in leaking] == [10] * (len(_LEAKS) - 2)
    leaks = _leaks_of(plain.folder, plain.done)
    for name in (
        "stdout",
        *(f"{plain.run.relative_to(plain.folder)}/{name} " for name in ("kernel.log", "run.json", "log.jsonl")),
    ):
        assert leaks[name] == set(_SECRETS)
    assert len(set().union(*(found for place, found in leaks.items() if "tfevents" in place))) == 10
    assert len([place for place in leaks if "name of" in place]) >= 8


# --- runs that end badly ---------------------------------------------------------------------------------------------

_SOME = r"""
import json, pathlib, sys
folder = pathlib.Path(os.environ["WORKBENCH_RUN"])
print(*values)
print(*values, file=sys.stderr)
(folder / "log.jsonl").write_text(json.dumps(values) + "\n")
for v in values:
    os.write(2, v.encode() + b"\n")
    print(v[:5], end="", flush=True)
    print(v[5:], flush=True)
"""
_FAIL = "raise RuntimeError('x' * 280 + values[0] + ' '.join(values)) from KeyError(*values)"
_KILL = "print(*values, flush=True); print(values[0], end='', flush=True); os.kill(os.getpid(), 9)"
_WAIT = """
print(*values, flush=True)
print(values[0], end="", flush=True)
open("ready", "w").close()
while True: json.dumps(values)
"""
_SAVE = """
import numpy as np
np.savez_compressed(folder / "arrays.npz", names=np.array(values))
np.save(folder / "clean.npy", np.zeros(3))
folder.joinpath(values[7] + ".bin").write_bytes(b"\\0" + values[9].encode())
"""


@pytest.mark.parametrize(
    ("last", "code", "status", "reason"),
    [
        (_FAIL, 1, "failed", "cell 6 failed: RuntimeError: " + "x" * 280 + "***s0******s0*** "),
        (_KILL, 1, "failed", "cell 6 failed: DeadKernelError: kernel killed by signal 9"),
        (_WAIT, 143, "interrupted", "interrupted by SIGTERM in cell 6"),
        (_SAVE, 3, "failed", "***s7***.bin held the value of s8 and s9"),
    ],
    ids=["fails", "is killed", "is terminated", "saves secrets"],
)
def test_no_secret_is_left_of_a_run_that(
    last: str, code: int, status: str, reason: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_notebook(project, _SOME, last)
    for name, value in _VARIABLES.items():
        monkeypatch.setenv(name, value)
    runner = subprocess.Popen([_COMMAND, "run", "nb.ipynb"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while code == 143 and runner.poll() is None:
        time.sleep(0.05)
        if (project / "ready").exists():
            runner.send_signal(signal.SIGTERM)
            break
    done = subprocess.CompletedProcess("run", 0, *runner.communicate(timeout=60))
    outcome = Outcome(project, done)
    assert runner.returncode == code, done.stderr
    assert _leaks_of(project, done) == {}
    assert outcome.record["status"] == status
    assert reason[:300] in outcome.record["reason"]
    assert reason[:300] in done.stderr or code == 143
    assert json.loads((outcome.run / "log.jsonl").read_text())[:2] == ["***s0***", "***s1***"]
    assert done.stdout.count("***s9***") > 1
    files = {path.name for path in outcome.run.iterdir()}
    assert files - {"clean.npy"} == {"kernel.log", "log.jsonl", "notebook.ipynb", "params.yaml", "run.json"}
    assert ("clean.npy" in files) == (last == _SAVE)
    assert ("arrays.npz held the value of s0 and s1 and" in done.stderr) == (last == _SAVE)


def test_one_more_ctrl_c_does_not_keep_the_files_from_being_mended(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient(folder: Path, mask: Mask) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        scrub(folder, mask)

    monkeypatch.setattr(launch, "scrub", impatient)
    run = create_run("test", {}, "run_notebook")
    (run.path / "log.txt").write_text(_SECRETS["hex"])
    import papermill  # noqa: F401  # before the engine

    close_with(run, "completed", "", Mask({"token": _SECRETS["hex"]}))
    assert (run.path / "log.txt").read_text() == "***token***"
    assert read_record(run)["status"] == "completed"


# --- parameters ------------------------------------------------------------------------------------------------------

_PARAMETERS = """
from workbench import Secret
token: Secret = "SERVICE_TOKEN"  # key of the data service
other: Secret = "OTHER_TOKEN"
url: str = "https://host"
"""
_TOKEN, _OTHER = "Ghp_" + _SECRETS["long"], _SECRETS["quotes"]


def test_only_the_names_of_variables_are_recorded(project: Path, write_notebook: Write, workbench: Command) -> None:
    look = """
import pathlib, workbench as wb
values = wb.read_secret(token), wb.read_secret(other)
assert url == "https://user:{}@host/{}".format(*values)
files = [path.read_bytes() for path in pathlib.Path("outputs").rglob("*") if path.is_file()]
print([value.encode() in file for value in values for file in files])
"""
    write_notebook(look, parameters=_PARAMETERS)
    (project / "params.yaml").write_text("token: MY_TOKEN\nother: WRONG\n")
    arguments = ["-f", "params.yaml", "-p", "other", "MY_OTHER", "-p", "url", f"https://user:{_TOKEN}@host/{_OTHER}"]
    done = workbench("run", "nb.ipynb", *arguments, cwd=project, MY_TOKEN=_TOKEN, MY_OTHER=_OTHER)
    assert done.returncode == 0, done.stderr
    assert str([False] * 12) in done.stdout  # while the run went on
    (run,) = find_runs()
    values = {"token": "MY_TOKEN", "other": "MY_OTHER", "url": "https://user:***token***@host/***other***"}
    assert dict(run.params) == values == yaml.safe_load((run.path / "params.yaml").read_text())
    assert shlex.split(read_record(run)["command"])[3:] == [*arguments[:-1], values["url"]]
    injected = nbformat.read(run.path / "notebook.ipynb", as_version=4).cells[1].source
    assert 'token = "MY_TOKEN"\nother = "MY_OTHER"\nurl = "https://user:***token***@host/***other***"' in injected


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        (["-p", "token", _OTHER], {}, "token: got a value that is not the name of an environment variable"),
        (["-p", "token", _TOKEN], {}, "token: the variable that was passed (not shown here"),
        (["-f", "bad.yaml"], {}, "token: the variable that was passed (not shown here"),
        ([], {"SERVICE_TOKEN": ""}, "token: SERVICE_TOKEN is not set; expected an environment variable"),
    ],
)
def test_a_secret_in_place_of_its_name_is_refused_and_not_shown(
    arguments: list[str],
    variables: dict[str, str],
    expected: str,
    project: Path,
    write_notebook: Write,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_notebook("1", parameters=_PARAMETERS)
    (project / "bad.yaml").write_text(f"token: {_TOKEN}\n")
    for name, value in {"SERVICE_TOKEN": _TOKEN, "OTHER_TOKEN": _OTHER, **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["workbench", "run", "nb.ipynb", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    monkeypatch.setattr(sys, "argv", ["workbench", "--debug", "run", "nb.ipynb", *arguments])
    with pytest.raises(UsageError) as error:
        main()
    shown = "".join([*capsys.readouterr(), *traceback.format_exception(error.value)])
    assert expected in shown
    assert _TOKEN[:8] not in shown
    assert _OTHER[:8] not in shown
    assert not (project / "outputs").exists()


# --- without a launcher ----------------------------------------------------------------------------------------------


def _globals(**values: str) -> dict[str, Any]:
    """Of a kernel that has executed the parameters cell."""
    given = {"token": "SERVICE_TOKEN", "other": "OTHER_TOKEN", "url": "https://host", **values}
    return {"__name__": "__main__", "In": ["", _PARAMETERS], **given}


@pytest.mark.parametrize("batch", [False, True])
def test_start_run_records_the_names_only(project: Path, monkeypatch: pytest.MonkeyPatch, batch: bool) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", _TOKEN)
    monkeypatch.setenv("OTHER_TOKEN", _OTHER)
    if batch:
        monkeypatch.setenv("WORKBENCH_RUN", str(create_run("test", {}, "workbench run").path))
    url = f"https://user:{_TOKEN}@host"
    run = start_run("test", _globals(url=url))
    recorded = {"token": "SERVICE_TOKEN", "other": "OTHER_TOKEN", "url": "https://user:***token***@host"}
    assert read_record(run)["params"] == recorded == yaml.safe_load((run.path / "params.yaml").read_text())
    assert run.params["url"] == url
    assert not [path for path in run.path.rglob("*") if path.is_file() and _TOKEN[4:].encode() in path.read_bytes()]


def test_start_run_refuses_a_secret_in_place_of_its_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_TOKEN", _OTHER)
    for value in (_TOKEN, _OTHER):  # one could be a name, the other could not
        with pytest.raises(UsageError, match="not shown here") as error:
            start_run("test", _globals(token=value))
        assert value[:6] not in str(error.value)
    assert not (project / "outputs").exists()
