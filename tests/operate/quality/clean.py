"""Data with nothing wrong in it, and for each the schema that a sensible person makes of its draft."""

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import yaml
from sklearn import datasets

from workbench.operate.quality.draft import draft
from workbench.operate.quality.read import tables
from workbench.operate.quality.schema import Schema, dump, parse

WORDS = ("Good", "bad", "fine", "Warm", "cold", "quick", "slow", "the", "a", "of", "bread", "room", "was", "is", "very")


def people(rows: int = 1200) -> pd.DataFrame:
    """A census of invented people: integers, a fraction, categories with gaps, dates, texts; some rows are alike."""
    draw = np.random.default_rng(0)
    age = draw.integers(17, 90, rows)
    works = pd.Series(draw.choice(["Private", "State", "Self-employed"], rows), dtype=object)
    frame = pd.DataFrame(
        {
            "age": age,
            "work": works.mask(draw.random(rows) < 0.05),
            "hours": np.clip(draw.normal(40, 9, rows), 1, 99).round(1),
            "member": draw.random(rows) < 0.4,
            "joined": pd.Timestamp("2012-03-01") + pd.to_timedelta(draw.integers(0, 3000, rows), unit="D"),
            "remark": [" ".join(draw.choice(WORDS, draw.integers(3, 12))) for _ in range(rows)],
            "income": np.where(draw.random(rows) + age / 300 > 0.85, "high", "low"),
        }
    )
    frame.iloc[-8:] = frame.iloc[:8].to_numpy()  # as in real tables
    return frame.astype({"age": int, "hours": float, "member": bool, "joined": "datetime64[us]"})


@cache
def data(name: str) -> tuple[Any, str | None]:
    """The data of that name and its target, where the data does not say it itself."""
    if name == "people":
        return people(), "income"
    if name == "digits":
        loaded = datasets.load_digits()
        return (loaded.images, loaded.target), None
    if name == "vectors":
        loaded = datasets.load_wine()
        return ({"sample": loaded.data}, loaded.target), None
    return getattr(datasets, f"load_{name}")(as_frame=True).frame, "target"


@cache
def schema(name: str) -> Schema:
    """The draft, as a file would have it, mended where a person knows better."""
    given, target = data(name)
    made = parse(yaml.safe_load(dump(draft(tables(given)[0], target))), name=name)
    columns = dict(made.columns)
    if name == "people":
        columns["age"] = dataclasses.replace(columns["age"], range=(0, 120))
        columns["joined"] = dataclasses.replace(columns["joined"], range=("2010-01-01", "now"))
    return dataclasses.replace(made, columns=columns, draft=False)


def take(given: Any, rows: Any) -> Any:
    """These rows of the data, in that order."""
    if isinstance(given, tuple):
        return tuple(take(part, rows) for part in given)
    if isinstance(given, dict):
        return {key: part[rows] for key, part in given.items()}
    return given.iloc[rows].reset_index(drop=True) if isinstance(given, pd.DataFrame) else given[rows]


def some(name: str, seed: int = 0, share: float = 0.7) -> Any:
    """A part of the data, in another order."""
    given, _ = data(name)
    count = tables(given)[0].rows
    return take(given, np.random.default_rng(seed).permutation(count)[: int(share * count)])
