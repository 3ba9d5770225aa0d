"""Parts of the rows in which a model may be worse than on the whole.

    slices(profile, table)     # {"sex is Female": [True, False, ...], "age to 28": [...]}: which rows are in which

The profile alone decides which parts there are, so those of training and of production are the same: each of a column's
most frequent categories, and each quarter of its numbers.
"""

import numpy as np
import pandas as pd

from workbench.profiles.profile import OTHERS, Array, Profile, quantile, values_of

MOST_COLUMNS, MOST_VALUES = 25, 10


def slices(profile: Profile, table: pd.DataFrame) -> dict[str, Array]:
    """For each part, which rows of `table` (facts) are in it: (rows,) of bool."""
    found: dict[str, Array] = {}
    for name in [name for name in profile if name in table][:MOST_COLUMNS]:
        column = profile[name]
        values = values_of(table[name], column["kind"])
        if column["kind"] == "category":
            often = [value for value in column["counts"] if value != OTHERS][:MOST_VALUES]
            found |= {f"{name} is {value}": values == value for value in often}
            continue
        limits = sorted({float(f"{quantile(column, share):.3g}") for share in (0.25, 0.5, 0.75) if column["edges"]})
        for low, high in zip([-np.inf, *limits], [*limits, np.inf], strict=True):
            span = [f"above {low:g}"] * (low > -np.inf) + [f"to {high:g}"] * (high < np.inf)
            found[f"{name} {' '.join(span)}"] = (values > low) & (values <= high)
    return found
