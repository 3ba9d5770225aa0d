"""What a notebook keeps of its cells' outputs: no more than it can hold, and no secret on the terminal.

    client.start_counting()        # before each cell
    client.note_cut(cell)          # after it: says in the cell what was left out

A cell that prints gigabytes must not fill the memory, the disk, or the browser that opens the notebook later.
"""

import re
from collections.abc import Mapping
from typing import Any

import nbformat
from papermill.clientwrap import PapermillNotebookClient

OUTPUT_LIMIT = 10 * 2**20  # characters of one cell's outputs that are kept
_ERROR_LIMIT = 10_000  # of an error's message, and of each line of its traceback
_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\r\n])")


class BoundedOutputs(PapermillNotebookClient):
    """Papermill's client, with a limit for each cell."""

    def start_counting(self) -> None:
        self.kept = self.cut = 0

    def note_cut(self, cell: Any) -> None:
        if self.cut:
            note = f"[workbench: {size(self.cut)} of output were cut here; a cell keeps {size(OUTPUT_LIMIT)}]\n"
            cell.outputs.append(nbformat.v4.new_output("stream", name="stderr", text=note))

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        """Keep an output, as far as the limit goes. A stream's pieces become one, with the lines a terminal shows."""
        kind, content = msg["msg_type"], msg["content"]
        if kind == "error":
            content["evalue"] = content["evalue"][:_ERROR_LIMIT]
            content["traceback"] = [line[:_ERROR_LIMIT] for line in content["traceback"]]
            return super().output(outs, msg, display_id, cell_index)
        if self.clear_before_next_output:
            self.kept = 0
        room, length = OUTPUT_LIMIT - self.kept, _length(content)
        if length > room:
            self.cut += length
            if kind != "stream" or room <= 0:
                return None
            self.cut -= room
            content["text"] = content["text"][:room]
        self.kept += min(length, room)
        last = outs[-1] if outs and not self.clear_before_next_output else {}
        hooked = self.output_hook_stack[msg["parent_header"].get("msg_id")]
        if kind == "stream" and last.get("name") == content["name"] and not hooked:
            start = last["text"].rfind("\n") + 1
            line = last["text"][start:] + content["text"]
            shown = _OVERWRITTEN.sub("", line)
            self.kept -= len(line) - len(shown)
            last["text"] = last["text"][:start] + shown
            return nbformat.v4.new_output("stream", name=content["name"], text=content["text"])
        return super().output(outs, msg, display_id, cell_index)

    def clear_output(self, outs: list[Any], msg: dict[str, Any], cell_index: int) -> None:
        super().clear_output(outs, msg, cell_index)
        if not outs:
            self.kept = 0

    def log_output_message(self, output: Any) -> None:
        super().log_output_message(self.nb_man.masked(output))


def _length(output: Mapping[str, Any]) -> int:
    """About how many characters an output, or a message's content, takes."""
    return len(output.get("text", "")) + sum(100 + len(str(value)) for value in output.get("data", {}).values())


def size(number: int) -> str:
    """Bytes for people: 21.3 GiB."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
