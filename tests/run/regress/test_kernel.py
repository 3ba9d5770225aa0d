"""What a cell's messages do to its outputs, and the names of nbval that ours stand on."""

import inspect
from typing import Any

from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile, comment_markers, metadata_tags

from workbench.run.regress.kernel import Screen


def message(kind: str, display: str | None = None, **content: Any) -> dict[str, Any]:
    transient = {"transient": {"display_id": display}} if display else {}
    return {"msg_type": kind, "content": {**content, **transient}}


def shown(*messages: dict[str, Any]) -> list[Any]:
    """The outputs that nbval keeps of the messages."""
    outputs: list[Any] = []
    screen = Screen(outputs)
    for each in messages:
        if taken := screen.take(each):
            outputs.append({"data": taken["content"].get("data", taken["content"].get("text"))})
    return [output["data"] for output in outputs]


def test_outputs_are_cleared_at_once_or_with_the_next() -> None:
    a, b = message("stream", text="a"), message("stream", text="b")
    assert shown(a, message("clear_output", wait=False)) == []
    assert shown(a, message("clear_output", wait=True)) == ["a"]
    assert shown(a, message("clear_output", wait=True), b) == ["b"]


def test_a_display_is_updated_where_it_stands() -> None:
    first, second = (message("display_data", name, data=name, metadata={}) for name in ("x", "y"))
    update = message("update_display_data", "x", data="new", metadata={})
    assert shown(first, second, update) == ["new", "y"]
    assert shown(first, message("clear_output", wait=False), second, update) == ["y"]


def test_nbval_has_the_names_that_ours_stand_on() -> None:
    assert list(inspect.signature(IPyNbCell.compare_outputs).parameters) == ["self", "test", "ref", "skip_compare"]
    assert list(inspect.signature(IPyNbCell.__init__).parameters)[1:] == [
        "name",
        "parent",
        "cell_num",
        "cell",
        "options",
    ]
    assert list(inspect.signature(RunningKernel.await_reply).parameters) == ["self", "msg_id", "timeout"]
    assert list(inspect.signature(IPyNbFile.get_kernel_message).parameters) == ["self", "timeout", "stream"]
    for owner, names in (
        (IPyNbFile, ("setup", "teardown", "collect", "get_sanitize_files", "kernel")),
        (IPyNbCell, ("setup", "runtest", "repr_failure", "raise_cell_error")),
        (RunningKernel, ("await_idle", "is_alive", "stop", "interrupt")),
    ):
        assert [name for name in names if not hasattr(owner, name)] == []
    source = inspect.getsource(IPyNbCell.runtest)
    assert "self.test_outputs = outs" in source  # which Screen changes as messages come
    assert "self.parent.get_kernel_message" in source
    assert set(comment_markers) >= {"NBVAL_IGNORE_OUTPUT", "NBVAL_CHECK_OUTPUT", "NBVAL_RAISES_EXCEPTION", "NBVAL_SKIP"}
    assert set(metadata_tags) >= {"nbval-check-output", "raises-exception"}
