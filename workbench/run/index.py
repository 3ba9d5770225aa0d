"""Find runs by what they are: outputs/index.sqlite, a cache of all run.json.

    find("digits", where="metrics.val_loss < 0.1", sort="-metrics.accuracy")     # find_runs does this

It is brought up to date whenever it is asked: a run.json is read again when its time, size or place on the disk is not
what it was. So the file may be missing, damaged or deleted at any time; only seconds are lost. Where it cannot be
written, as in a folder that one may only read, the same is done in memory.
"""

import difflib
import fnmatch
import json
import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from filelock import FileLock

from workbench.errors import UsageError
from workbench.run.lost import settle
from workbench.run.runs import Run, runs_folder
from workbench.run.where import Where, name_of, parse_sort, parse_where

_VERSION = 1  # of the tables
_TABLES = f"""
BEGIN;
CREATE TABLE runs (run INTEGER PRIMARY KEY, path TEXT, mtime INTEGER, size INTEGER, inode INTEGER, head TEXT);
CREATE TABLE facts (name TEXT, run INTEGER, value, PRIMARY KEY (name, run)) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_KNOWN = "SELECT path, mtime, size, inode FROM runs"
_GOING = f"{_KNOWN} WHERE run IN (SELECT run FROM facts WHERE name = 'status' AND value = 'running')"
_OUTDATED = "path IN (SELECT value FROM json_each(?))"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)  # the last: not our tables
_GROUP = b"{}"  # the value of a field whose content has names of its own
_SECONDS = 60  # to wait for another process that brings the index up to date
_RECENT = 10**9  # nanoseconds in which a file may change and keep its time

State = tuple[str, int, int, int]  # of a run.json: name/id, time in nanoseconds, bytes, inode


def find(name: str | None, where: str | None, sort: str | None) -> list[Run]:
    """The project's runs, or those called `name`, for which the condition `where` holds, in the order of `sort`.

    Without `sort`, and among equals, the newest come first. Runs without the value come last. A run whose process has
    died is written down as lost. Raises UsageError for a condition that is not allowed, for a name in it that none of
    these runs has, and for a run.json that is not valid JSON.
    """
    condition = parse_where(where) if where is not None else None
    order = parse_sort(sort) if sort is not None else None
    folder = runs_folder()
    if not folder.is_dir():
        return []

    def answer(database: sqlite3.Connection) -> list[Run]:
        with closing(database):
            damaged = _refresh(database, folder)
            for path, error in damaged.items():
                if _is_called(path, name):
                    raise error
            return _select(database, folder, name, condition, order)

    file = folder.with_name("index.sqlite")
    try:
        with FileLock(file.with_name(".index.lock"), timeout=_SECONDS, poll_interval=0.01):
            try:
                return answer(_open(file))
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF not in _DAMAGED:
                    raise
            for old in (file.with_name(f"{file.name}-journal"), file):
                old.unlink(missing_ok=True)
            return answer(_open(file))
    except (OSError, sqlite3.Error):
        return answer(_open(":memory:"))


def _open(file: Path | str) -> sqlite3.Connection:
    """The database, with tables if it is new. Raises sqlite3.DatabaseError if it is none, or has other tables."""
    database = sqlite3.connect(file, timeout=1)  # of ours nobody else has it open; somebody may look at it
    try:
        if database.execute("PRAGMA user_version").fetchone() != (_VERSION,):
            database.executescript(_TABLES)
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def _refresh(database: sqlite3.Connection, folder: Path) -> dict[str, UsageError]:
    """Let the database hold what the files hold now; those that are not valid are returned, by path."""
    found = set(_states(folder))
    known = set(database.execute(_KNOWN))
    current = known & found
    current -= {state for state in current.intersection(database.execute(_GOING)) if _has_ended(folder / state[0])}
    damaged = {}
    if found != current or known != current:
        outdated = json.dumps([path for path, *_ in known - current])
        now = time.time_ns()
        with database:  # one transaction
            database.execute(f"DELETE FROM facts WHERE run IN (SELECT run FROM runs WHERE {_OUTDATED})", (outdated,))
            database.execute(f"DELETE FROM runs WHERE {_OUTDATED}", (outdated,))
            for path, mtime, size, inode in found - current:
                try:
                    _insert(database, folder, (path, 0 if now - mtime < _RECENT else mtime, size, inode))
                except FileNotFoundError:  # somebody has just removed it
                    continue
                except UsageError as error:
                    damaged[path] = error
    return damaged


def _states(folder: Path) -> Iterator[State]:
    """The state of each run.json."""
    for name in os.scandir(folder):
        if name.is_dir() and not name.name.startswith("."):
            for run in os.listdir(name):
                try:
                    stat = os.stat(f"{name.path}/{run}/run.json")
                except (FileNotFoundError, NotADirectoryError):  # somebody has just removed it; another file
                    continue
                if not run.startswith("."):
                    # SQLite's integers have a sign.
                    yield f"{name.name}/{run}", stat.st_mtime_ns, stat.st_size, stat.st_ino & (2**63 - 1)


def _has_ended(path: Path) -> bool:
    """Whether a run that was running is no more so, or no more there."""
    with suppress(FileNotFoundError, UsageError):
        return settle(Run(path, ""))["status"] != "running"
    return True


def _insert(database: sqlite3.Connection, folder: Path, state: State) -> None:
    path = state[0]
    record = settle(Run(folder / path, ""))
    head = json.dumps([record["name"], record["params"]])
    run = database.execute("INSERT INTO runs VALUES (NULL, ?, ?, ?, ?, ?)", (*state, head)).lastrowid
    facts = {**dict(_facts(record, "")), "id": path.rpartition("/")[2]}
    rows = ((name, run, _stored(value)) for name, value in facts.items())
    database.executemany("INSERT INTO facts VALUES (?, ?, ?)", rows)


def _facts(fields: Mapping[str, Any], parent: str) -> Iterator[tuple[str, Any]]:
    """Each field of a record, and each of those in it, by the name that a condition has for it."""
    for key, value in fields.items():
        name = name_of(parent, key) if parent else key
        yield name, value
        if isinstance(value, dict):
            yield from _facts(value, name)


def _stored(value: Any) -> int | float | str | bytes | None:
    """A value as SQLite has it; as JSON in bytes where it has no such value, or another one."""
    match value:
        case None | float() | bool():
            return value
        case int() if -(2**63) <= value < 2**63:
            return value
        case str() if value.isascii():
            return value
        case dict():
            return _GROUP
    return json.dumps(value).encode()


def _select(
    database: sqlite3.Connection, folder: Path, name: str | None, where: Where | None, order: tuple[str, bool] | None
) -> list[Run]:
    rows = database.execute("SELECT run, path, head FROM runs").fetchall()
    heads = {run: (path, head) for run, path, head in rows if _is_called(path, name)}
    chosen = sorted(heads, key=lambda run: heads[run][0].rpartition("/")[2], reverse=True)
    if where is not None:
        columns = [map(_values(database, field, heads).get, chosen) for field in where.names]
        chosen = [run for run, *row in zip(chosen, *columns, strict=True) if where.test(row)]
    if order is not None:
        key, descending = order
        values = _values(database, key, heads)
        kinds: tuple[list[int], ...] = ([], [], [])  # numbers, texts, and what cannot be sorted
        for run in chosen:
            value = values.get(run)
            kinds[0 if isinstance(value, int | float) else 1 if isinstance(value, str) else 2].append(run)
        known = [sorted(kind, key=values.__getitem__, reverse=descending) for kind in kinds[:2]]
        chosen = [*known[descending], *known[not descending], *kinds[2]]
    contents = json.loads(f"[{','.join(heads[run][1] for run in chosen)}]")
    return [
        Run(folder / heads[run][0], called, MappingProxyType(parameters))
        for run, (called, parameters) in zip(chosen, contents, strict=True)
    ]


def _values(database: sqlite3.Connection, name: str, runs: Collection[int]) -> dict[int, Any]:
    """The value of a field, by run. Raises UsageError if none of `runs` has such a field."""
    rows = database.execute("SELECT run, value FROM facts WHERE name = ?", (name,))
    values = {run: json.loads(value) if isinstance(value, bytes) else value for run, value in rows}
    if runs and values.keys().isdisjoint(runs):
        ours = "SELECT DISTINCT name FROM facts WHERE value IS NOT ? AND run IN (SELECT value FROM json_each(?))"
        raise _unknown(name, [found for (found,) in database.execute(ours, (_GROUP, json.dumps(list(runs))))])
    return values


def _unknown(name: str, names: list[str]) -> UsageError:
    alike = [found for found in names if found.rpartition(".")[2] == name.rpartition(".")[2]]
    near = (alike or difflib.get_close_matches(name, names, n=1))[:1]
    some = ", ".join([found for found in names if found.startswith(("params.", "metrics."))][:12])
    hint = f"did you mean {near[0]}?" if near else f"expected a field of run.json, as status, started, {some}."
    quotes = "" if "." in name else f' A text is in quotes: "{name}".'
    return UsageError(f"{name}: no run here has such a value; {hint}{quotes}")


def _is_called(path: str, name: str | None) -> bool:
    return not name or fnmatch.fnmatchcase(path.partition("/")[0], name)
