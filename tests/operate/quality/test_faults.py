"""What is planted is found, under the name of its rule and of its column."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.operate.quality.clean import schema, some, take
from workbench.operate.quality.read import tables
from workbench.operate.quality.rules import find

FAULTS: list[Any] = []


def fault(on: str, rule: str, column: str) -> Callable[[Callable[[Any], Any]], None]:
    """The function below makes that fault in clean data."""

    def add(make: Callable[[Any], Any]) -> None:
        FAULTS.append(pytest.param(on, rule, column, make, id=f"{on}-{make.__name__.strip('_')}"))

    return add


def put(frame: pd.DataFrame, column: str, rows: Any, value: Any) -> pd.DataFrame:
    frame = frame.astype({column: object})
    frame.loc[rows, column] = value
    return frame


@fault("people", "range", "age")
def _an_impossible_age(frame: pd.DataFrame) -> Any:
    return put(frame, "age", 17, 300)


@fault("people", "range", "age")
def _months_instead_of_years(frame: pd.DataFrame) -> Any:
    return frame.assign(age=frame["age"] * 12)


@fault("people", "median", "hours")
def _hours_of_a_day(frame: pd.DataFrame) -> Any:
    return frame.assign(hours=frame["hours"] / 5)


@fault("people", "spread", "hours")
def _noise(frame: pd.DataFrame) -> Any:
    return frame.assign(hours=np.clip(40 + 4 * (frame["hours"] - 40), 1, 99))


@fault("people", "range", "joined")
def _a_date_to_come(frame: pd.DataFrame) -> Any:
    return put(frame, "joined", 5, pd.Timestamp("2999-01-01"))


@fault("people", "kind", "joined")
def _dates_day_first(frame: pd.DataFrame) -> Any:
    return frame.assign(joined=frame["joined"].dt.strftime("%d/%m/%Y"))


@fault("people", "kind", "joined")
def _dates_as_seconds(frame: pd.DataFrame) -> Any:
    return frame.assign(joined=frame["joined"].astype("int64"))


@fault("people", "values", "work")
def _a_typing_error(frame: pd.DataFrame) -> Any:
    return put(frame, "work", 3, "Privat")


@fault("people", "values", "work")
def _lower_case(frame: pd.DataFrame) -> Any:
    return frame.assign(work=frame["work"].str.lower())


@fault("people", "kind", "age")
def _numbers_as_text(frame: pd.DataFrame) -> Any:
    return frame.assign(age=frame["age"].astype(str))


@fault("people", "range", "age")
def _numbers_as_text_do_not_hide_one_that_is_impossible(frame: pd.DataFrame) -> Any:
    return put(frame, "age", 17, 300).astype({"age": str})


@fault("people", "kind", "age")
def _a_word_among_numbers(frame: pd.DataFrame) -> Any:
    return put(frame, "age", 17, "unknown")


@fault("people", "kind", "age")
def _fractions(frame: pd.DataFrame) -> Any:
    return frame.assign(age=frame["age"] + 0.5)


@fault("people", "kind", "member")
def _yes_and_no(frame: pd.DataFrame) -> Any:
    return frame.assign(member=np.where(frame["member"], "yes", "no"))


@fault("people", "kind", "remark")
def _a_number_as_remark(frame: pd.DataFrame) -> Any:
    return put(frame, "remark", 2, 7)


@fault("people", "median", "remark.capitals")
def _texts_in_capitals(frame: pd.DataFrame) -> Any:
    return frame.assign(remark=frame["remark"].str.upper())


@fault("people", "range", "remark.characters")
def _texts_run_together(frame: pd.DataFrame) -> Any:
    return put(frame, "remark", 2, " ".join(frame["remark"]))


@fault("people", "missing", "age")
def _a_missing_age(frame: pd.DataFrame) -> Any:
    return put(frame, "age", 17, None)


@fault("people", "missing", "work")
def _too_many_gaps(frame: pd.DataFrame) -> Any:
    return put(frame, "work", range(0, len(frame), 3), None)


@fault("people", "empty", "work")
def _nothing_at_all(frame: pd.DataFrame) -> Any:
    return frame.assign(work=None)


@fault("people", "constant", "hours")
def _all_the_same(frame: pd.DataFrame) -> Any:
    return frame.assign(hours=40.0)


@fault("people", "infinite", "hours")
def _infinity(frame: pd.DataFrame) -> Any:
    return put(frame, "hours", 2, np.inf).astype({"hours": float})


@fault("people", "missing column", "work")
def _a_column_less(frame: pd.DataFrame) -> Any:
    return frame.drop(columns="work")


@fault("people", "unexpected column", "id")
def _a_column_more(frame: pd.DataFrame) -> Any:
    return frame.assign(id=range(len(frame)))


@fault("people", "repeated column", "age")
def _a_column_twice(frame: pd.DataFrame) -> Any:
    return pd.concat([frame, frame[["age"]]], axis=1)


@fault("people", "median", "hours")
def _columns_swapped(frame: pd.DataFrame) -> Any:
    return frame.rename(columns={"age": "hours", "hours": "age"})


@fault("people", "shares", "income")
def _out_of_balance(frame: pd.DataFrame) -> Any:
    return frame[(frame["income"] == "low") | (frame.index % 10 == 0)]


@fault("people", "duplicates", "")
def _rows_twice(frame: pd.DataFrame) -> Any:
    return pd.concat([frame, frame[::4]]).sample(frac=1, random_state=0)


@fault("people", "leakage", "")
def _rows_of_train_in_test(frame: pd.DataFrame) -> Any:
    return {"train": frame[:500], "test": pd.concat([frame[500:], frame[:50]])}


@fault("people", "leakage", "")
def _leaked_inputs_with_another_target(frame: pd.DataFrame) -> Any:
    return {"train": frame[:500], "validation": pd.concat([frame[500:], frame[:50].assign(income="low")])}


@fault("digits", "range", "input.high")
def _another_scale(given: Any) -> Any:
    return given[0] / 16, given[1]


@fault("digits", "median", "input.mean")
def _black_and_white_reversed(given: Any) -> Any:
    return 16 - given[0], given[1]


@fault("digits", "dtype", "input")
def _another_type(given: Any) -> Any:
    return given[0].astype("uint8"), given[1]


@fault("digits", "shape", "input")
def _a_border(given: Any) -> Any:
    return np.pad(given[0], ((0, 0), (1, 1), (1, 1))), given[1]


@fault("digits", "kind", "input")
def _images_as_rows(given: Any) -> Any:
    return given[0].reshape(-1, 64), given[1]


@fault("digits", "blank", "input")
def _blank_images(given: Any) -> Any:
    return np.where(np.arange(len(given[0]))[:, None, None] == 7, 3, given[0]), given[1]


@fault("digits", "missing", "input")
def _a_pixel_that_is_no_number(given: Any) -> Any:
    return np.where(given[0] == given[0][3, 2, 2], np.nan, given[0]), given[1]


@fault("digits", "infinite", "input")
def _an_infinite_pixel(given: Any) -> Any:
    return np.where(given[0] == 16, np.inf, given[0]), given[1]


@fault("digits", "shares", "target")
def _no_sevens(given: Any) -> Any:
    return take(given, given[1] != 7)


@fault("digits", "values", "target")
def _labels_from_one(given: Any) -> Any:
    return given[0], given[1] + 1


@fault("digits", "duplicates", "")
def _an_image_twice(given: Any) -> Any:
    return take(given, [*range(len(given[1])), 0])


@fault("digits", "leakage", "")
def _a_leaked_image(given: Any) -> Any:
    return {"train": take(given, range(600)), "test": take(given, range(599, 1200))}


@fault("diabetes", "range", "bmi")
def _not_standardised(frame: pd.DataFrame) -> Any:
    return frame.assign(bmi=26 + 90 * frame["bmi"])


@fault("wine", "range", "proline")
def _another_unit(frame: pd.DataFrame) -> Any:
    return frame.assign(proline=frame["proline"] / 1000)


@fault("wine", "shares", "target")
def _a_class_less(frame: pd.DataFrame) -> Any:
    return frame[frame["target"] != 2]


@fault("breast_cancer", "range", "mean smoothness")
def _neighbours_swapped(frame: pd.DataFrame) -> Any:
    return frame.rename(columns={"mean area": "mean smoothness", "mean smoothness": "mean area"})


@fault("breast_cancer", "constant", "worst texture")
def _a_broken_sensor(frame: pd.DataFrame) -> Any:
    return frame.assign(**{"worst texture": 25.0})


@fault("vectors", "shape", "sample")
def _a_feature_less(given: Any) -> Any:
    return {"sample": given[0]["sample"][:, :-1]}, given[1]


@fault("vectors", "range", "sample.12")
def _a_feature_in_another_unit(given: Any) -> Any:
    return {"sample": given[0]["sample"] * ([1] * 12 + [1000])}, given[1]


@fault("vectors", "missing", "sample")
def _gaps_in_vectors(given: Any) -> Any:
    return {"sample": np.where(given[0]["sample"] > 1000, np.nan, given[0]["sample"])}, given[1]


@pytest.mark.parametrize(("on", "rule", "column", "make"), FAULTS)
def test_a_fault_is_found_and_named(on: str, rule: str, column: str, make: Callable[[Any], Any]) -> None:
    found = find(tables(make(some(on))), schema(on))
    assert (rule, column) in [(finding.rule, finding.column) for finding in found], [f.line() for f in found]


def test_the_faults_are_many_and_no_two_alike() -> None:
    assert len({parameters.id for parameters in FAULTS}) == len(FAULTS) >= 25


def test_a_finding_says_what_where_and_how_often() -> None:
    frame = put(put(some("people"), "work", [3, 40], "Privat"), "age", range(100, 150), 300)
    ages, typo = find(tables(frame), schema("people"))
    assert typo.line() == (
        "values of work in data: got 'Privat' (did you mean 'Private'?); "
        "expected one of 'Private', 'Self-employed', 'State'; 2 rows: 3, 40"
    )
    assert (ages.rule, ages.found, ages.expected, ages.count) == ("range", "300", "0 to 120", 50)
    assert ages.rows == [{"split": "data", "row": row, "value": "300"} for row in range(100, 120)]


def test_leakage_says_whether_the_targets_are_the_same() -> None:
    frame = some("people").drop_duplicates(ignore_index=True)
    train, test = frame[:500], frame[500:]
    again = frame[:30].assign(income="unheard of")
    [found] = [
        f
        for f in find(tables({"train": train, "test": pd.concat([again, test])}), schema("people"))
        if f.rule == "leakage"
    ]
    assert found.found.endswith(f"in 30 of {30 + len(test)} rows ({3000 / (30 + len(test)):.3g} %), with other targets")
    assert (found.split, [row["row"] for row in found.rows]) == ("test", list(range(20)))


def test_rows_are_the_same_whatever_types_their_columns_came_with() -> None:
    frame = some("people")
    other = frame.astype({"age": float, "work": "category", "joined": "datetime64[ns]"})[frame.columns[::-1]]
    found = find(tables({"train": frame, "test": other}), schema("people"))
    assert [(f.rule, f.count) for f in found] == [("leakage", len(frame))]
