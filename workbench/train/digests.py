"""What data is, in a few bytes: to the bit in its order, and in whatever order.

    digest(columns)            # sha256: another value, another order or another name, and it is another
    rows_digest(columns)       # the same for the same rows in another order

`columns` are arrays of equal length in nested tuples and dicts, as `columns_of` makes them.
"""

import hashlib
from typing import Any

import numpy as np
import pandas as pd

_ROWS = 4096  # that are looked at together, so that no copy of all the data is made


def digest(columns: Any) -> str:
    """The sha256 of arrays in a tuple or dict: of their names, dtypes, shapes and values."""
    total = hashlib.sha256()
    for path, column in flatten(columns):
        total.update(f"{path} {column.dtype} {column.shape}\n".encode())
        if column.dtype.kind in "OU":
            for text in column.ravel():
                encoded = str(text).encode()
                total.update(len(encoded).to_bytes(8, "little") + encoded)
        else:
            total.update(np.ascontiguousarray(column).data)
    return total.hexdigest()


def rows_digest(columns: Any) -> str:
    """The sum of a 64-bit hash of each row, as hex: a word on what has changed, and no proof against an attacker."""
    hashes: Any = 0
    for path, column in flatten(columns):
        salt = np.uint64(int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "little"))
        hashes = _mixed(hashes * np.uint64(3) + _row_hashes(column) + salt)
    return f"{int(hashes.sum(dtype='uint64')):016x}"


def flatten(columns: Any, path: str = "") -> list[tuple[str, np.ndarray]]:
    """(path, array) of each column: ("[0][age]", ...)."""
    if isinstance(columns, tuple):
        return [pair for i, part in enumerate(columns) for pair in flatten(part, f"{path}[{i}]")]
    if isinstance(columns, dict):
        return [pair for name in sorted(columns) for pair in flatten(columns[name], f"{path}[{name}]")]
    return [(path, columns)]


def _row_hashes(column: np.ndarray) -> np.ndarray:
    """A 64-bit number for each row: a sum of its words, each times a factor of its own."""
    if column.dtype.kind in "OU":
        texts = pd.util.hash_array(column.astype(object).ravel(), categorize=False).reshape(len(column), -1)
        return _dot(texts)
    parts = []
    for start in range(0, len(column), _ROWS):
        rows = np.ascontiguousarray(column[start : start + _ROWS])
        content = np.frombuffer(rows.tobytes(), np.uint8).reshape(len(rows), rows[0].nbytes)
        content = np.pad(content, ((0, 0), (0, -content.shape[1] % 8)))
        parts.append(_dot(content.view(np.uint64)))
    return np.concatenate(parts)


def _dot(words: np.ndarray) -> np.ndarray:
    factors = np.random.default_rng(0).integers(2**63, 2**64, words.shape[1], dtype="uint64") | np.uint64(1)
    return _mixed(words) @ factors


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Each number spread over all its 64 bits (the finaliser of MurmurHash3), so that their sums tell them apart."""
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53), (33, 1)):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    return numbers
