"""Data by its digest: read or fetched, kept, and recorded, so that a run says what it was trained on.

    path = wb.data(run, "../data/penguins.csv", "4a8c...")                    # a file of the project, or a folder
    path = wb.data(run, "https://example.org/penguins.csv", "4a8c...")        # fetched once, then from the cache

What is fetched is kept in the user's cache folder, under its digest.
"""

import re
import shutil
import tempfile
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

from filelock import FileLock

from workbench import context, files
from workbench.errors import GateError, UsageError
from workbench.run.runs import Run, update_record

_TIMEOUT_SECONDS = 60.0  # of silence


def data(run: Run, source: str | Path, sha256: str | None = None) -> Path:
    """The local path of `source`, whose content has this sha256; noted in run.json, field `files`.

    source: a URL (http, https, file), or the path of a file or folder, from the notebook's folder. A path that is not
      there is looked for in the cache, by its digest. A folder's digest is that of its files' names and digests.

    Raises UsageError if there is no such source, or no `sha256` is given (it says which it has), and GateError if the
    content has another.
    """
    text = str(source)
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise UsageError(f"data: sha256 is {sha256!r}; expected 64 hexadecimal digits, or nothing, to be told them")
    if re.match(r"(https?|file)://", text):
        path, found = _cached_or_fetched(text, sha256)
    elif Path(source).exists():
        path, found = Path(source), files.sha256(Path(source))
    elif kept := cached(sha256):
        path, found = kept, str(sha256)
    else:
        raise UsageError(
            f"data: {text}: no such file in {Path.cwd()}, nor is one of its digest in the cache; expected a file, a "
            "folder or a URL"
        )
    record_file(run, text, path, found)
    if sha256 is None:
        raise UsageError(
            f"data: {text} has no sha256 yet; if it is the right one, write data(run, {text!r}, {found!r})"
        )
    if found != sha256:
        raise GateError(
            f"data: {text} has sha256 {found}, expected {sha256}: it has changed. Bring back what it was, or write "
            "the new digest, if the change is meant."
        )
    return path


def record_file(run: Run, source: str, path: Path, sha256: str | None = None) -> None:
    """Note in run.json that the run has read `path`, which the notebook calls `source`: where in the project it is."""
    path, root = path.resolve(), context.project_root()
    shown: str | None = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    if path.is_relative_to(cache_folder()):
        shown = None  # it can be fetched again
    facts = {"path": shown, "sha256": sha256 or files.sha256(path), "bytes": files.size(path)}
    update_record(run, files={source: facts})


def cache_folder() -> Path:
    """Where fetched data is kept: <sha256>/<name>."""
    return (context.cache_folder() / "data").resolve()


def cached(sha256: str | None) -> Path | None:
    """The file of this digest in the cache; one that is damaged is not there."""
    folder = cache_folder() / (sha256 or "?")
    path = next(folder.iterdir(), None) if folder.is_dir() else None
    return path if path and files.sha256(path) == sha256 else None


def keep(path: Path, sha256: str) -> None:
    """Let the cache have a copy of a file of this digest."""
    with files.staged(cache_folder() / sha256) as folder:
        shutil.copyfile(path, folder / path.name)


def _cached_or_fetched(url: str, sha256: str | None) -> tuple[Path, str]:
    """(path, sha256) in the cache; what has another digest than is asked for goes there, too, under its own."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with FileLock(cache_folder() / f".{sha256 or 'new'}.lock"):  # of several workers one fetches
        if path := cached(sha256):
            return path, str(sha256)
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".incoming-") as folder:
            staging = Path(folder, unquote(Path(urlsplit(url).path).name) or "data")
            _download(url, staging)
            found = files.sha256(staging)
            keep(staging, found)
    return cache_folder() / found / staging.name, found


def _download(url: str, path: Path) -> None:
    try:
        with urlopen(url, timeout=_TIMEOUT_SECONDS) as answer, open(path, "wb") as file:
            shutil.copyfileobj(answer, file)
            missing = getattr(answer, "length", None)
    except (URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise UsageError(f"data: {url} could not be fetched ({reason}); expected a URL that answers") from error
    if missing:
        raise UsageError(f"data: {url} ended {missing} bytes early; try again")
