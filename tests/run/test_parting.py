from typing import Any

import nbformat

from workbench.run import parting


def evidence(metrics: dict[str, Any], curves: dict[str, Any], weights: list[list[str]]) -> dict[str, Any]:
    record = {"metrics": metrics, "weights_sha256": str(weights)}
    return {"record": record, "curves": curves, "weights": weights}


THEN = evidence(
    {"loss": 0.5}, {"loss": [1.0, 0.5], "val_loss": [1.1, None]}, [["a/dense/kernel", "1"], ["a/out/b", "2"]]
)


def test_the_same_parts_nowhere() -> None:
    assert parting.part(THEN, THEN).same


def test_where_results_part_is_the_first_epoch_layer_and_metric() -> None:
    now = evidence(
        {"loss": 0.6}, {"loss": [1.0, 0.6], "val_loss": [1.1, 0.7]}, [["dense_1/kernel", "1"], ["x/out/b", "3"]]
    )
    found = parting.part(THEN, now)
    assert found.lines() == [
        "epoch 2: loss 0.5 then, 0.6 now",
        "layer a/out: a/out/b",
        "metric loss: 0.5 then, 0.6 now",
    ]
    assert found.epoch[1:] == ["epoch 2: val_loss None then, 0.7 now"]


def test_with_a_tolerance_numbers_may_differ_and_weights_do_not_count() -> None:
    now = evidence({"loss": 0.5001}, {"loss": [1.0001, 0.5], "val_loss": [1.1, None]}, [["a/dense/kernel", "9"]])
    assert not parting.part(THEN, now).same
    assert parting.part(THEN, now, rtol=1e-3).same
    assert parting.part(THEN, now, rtol=1e-5).lines()[0] == "epoch 1: loss 1.0 then, 1.0001 now"


def test_an_epoch_less_and_a_metric_less_are_differences() -> None:
    now = evidence({}, {"loss": [1.0], "val_loss": [1.1]}, [])
    found = parting.part(THEN, now, rtol=1.0)
    assert found.lines() == ["epoch 2: loss 0.5 then, none now", "metric loss: 0.5 then, None now"]


def cells(text: str, source: str = "print(1)") -> list[Any]:
    out = nbformat.v4.new_output("stream", name="stdout", text=text)
    code = nbformat.v4.new_code_cell(source, outputs=[out], execution_count=3)
    return [nbformat.v4.new_markdown_cell("# A\n## Data"), code]


def test_outputs_part_with_the_number_and_the_heading_of_the_cell() -> None:
    (line,) = parting.outputs(cells("mass 0.25"), cells("mass 0.5"), str)
    assert line.startswith("cell 3 (Data): ")
    assert parting.outputs(cells("run 7"), cells("run 8"), lambda text: text[:4]) == []


def test_outputs_that_the_notebook_excepts_are_not_compared() -> None:
    source = "# NBVAL_IGNORE_OUTPUT\nprint(time())"
    assert parting.outputs(cells("1", source), cells("2", source), str) == []
