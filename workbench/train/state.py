"""The state of training on the disk, from which a killed run goes on: two files deep, each named by its own hash.

    writer = Writer(run.path / "state", "0")            # of the first training in the run
    writer.put({"epoch": 3, "step": 20}, arrays)        # returns at once; a thread writes what is newest
    writer.close()                                      # waits for it

    found = read(run.path / "state", "0")               # (facts, arrays) of the newest file that is whole, or None

A file is <training>-<sequence>-<sha256>.state. One whose content is not what its name says is passed over.
"""

import hashlib
import json
import math
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from workbench import files

_DEEP = 2
_CHUNK = 2**26  # bytes of one write: some systems take no more than 2 GiB
_NAME = re.compile(r"(?P<training>.+)-(?P<sequence>\d{6,})-(?P<digest>[0-9a-f]{64})\.state")

State = tuple[dict[str, Any], dict[str, np.ndarray]]


def write(folder: Path, training: str, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
    """Write a state of `training`, whole or not at all, and forget those before the last one."""
    folder.mkdir(exist_ok=True)
    known = _states(folder, training)
    sequence = int(_match(known[0])["sequence"]) + 1 if known else 1
    staging = folder / f".incoming-{training}"
    specs = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
    head = memoryview(json.dumps([facts, specs]).encode() + b"\n")
    hashing = hashlib.sha256()
    with open(staging, "wb", buffering=0) as file:
        # The arrays' own memory: a copy of it, as a .npz makes, takes longer than to hash and write it.
        bits = (np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays.values())
        for part in (head, *bits):
            hashing.update(part)
            for start in range(0, len(part), _CHUNK):
                file.write(part[start : start + _CHUNK])
    path = folder / f"{training}-{sequence:06d}-{hashing.hexdigest()}.state"
    files.replace(staging, path)
    for old in known[_DEEP - 1 :]:
        old.unlink(missing_ok=True)
    return path


def read(folder: Path, training: str) -> State | None:
    """The newest whole state of `training`, or None. `as_dtype` gives its arrays their type back."""
    for path in _states(folder, training):
        if files.sha256(path) != _match(path)["digest"]:
            print(f"the state {path.name} is damaged; the one before it is taken")
            continue
        content = path.read_bytes()
        position = content.index(b"\n") + 1
        facts, specs = json.loads(content[:position])
        arrays = {}
        for name, dtype, shape in specs:
            arrays[name] = np.frombuffer(content, dtype, math.prod(shape), position).reshape(shape)
            position += arrays[name].nbytes
        return facts, arrays
    return None


def as_dtype(bits: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """An array as it was before it was written."""
    return bits.view(dtype)


class Writer:
    """Writes states in a thread of its own; one that a newer one has overtaken is not written."""

    def __init__(self, folder: Path, training: str) -> None:
        self.folder, self.training = folder, training
        self.waiting: tuple[Mapping[str, Any], dict[str, np.ndarray]] | None = None
        self.free: list[dict[str, np.ndarray]] = []  # memory of states that have been written
        self.problem: OSError | None = None
        self.closing = False
        self.news = threading.Condition()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def put(self, facts: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Let this be the state that is written next. The arrays, or tensors, are copied before it returns.

        Two copies are kept, since memory that is new to the process costs ten times the copy.
        """
        with self.news:
            if self.waiting:
                self.free.append(self.waiting[1])
                self.waiting = None
            memory = self.free.pop() if self.free else {}
            problem, self.problem = self.problem, None
        copies = {name: _copied(np.asarray(array), memory.get(name)) for name, array in arrays.items()}
        with self.news:
            self.waiting = (facts, copies)
            self.news.notify()
        if problem:  # training is worth more than the means to resume it
            print(f"a state could not be written: {problem}; a killed run would go on from an older one", flush=True)

    def close(self) -> None:
        """Wait until the last state is on the disk. Raises OSError if it could not be written."""
        with self.news:
            self.closing = True
            self.news.notify()
        self.thread.join()
        if self.problem:
            raise self.problem

    def _work(self) -> None:
        while True:
            with self.news:
                self.news.wait_for(lambda: self.waiting or self.closing)
                if self.waiting is None:
                    return
                (facts, arrays), self.waiting = self.waiting, None
            try:
                write(self.folder, self.training, facts, arrays)
                self.problem = None
            except OSError as error:
                self.problem = error
            with self.news:
                self.free.append(arrays)


def _states(folder: Path, training: str) -> list[Path]:
    """The states of `training`, newest first."""
    found = [path for path in folder.glob("*.state") if (m := _NAME.fullmatch(path.name)) and m["training"] == training]
    return sorted(found, key=lambda path: int(_match(path)["sequence"]), reverse=True)


def _match(path: Path) -> re.Match[str]:
    match = _NAME.fullmatch(path.name)
    assert match
    return match


def _copied(array: np.ndarray, memory: np.ndarray | None) -> np.ndarray:
    if memory is None or (memory.shape, memory.dtype) != (array.shape, array.dtype):
        return np.array(array)
    np.copyto(memory, array)
    return memory
