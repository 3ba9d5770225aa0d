"""What a notebook keeps of its cells' outputs: no more than it can hold, and no secret on the terminal.

    await client.run_cell(cell, index)

A cell that prints gigabytes must not fill the memory, the disk, or the browser that opens the notebook later.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from queue import Empty
from typing import Any

import nbformat
from nbclient.exceptions import CellExecutionComplete
from papermill.clientwrap import PapermillNotebookClient

OUTPUT_LIMIT = 10 * 2**20  # characters of one cell's outputs that are kept
_ERROR_LIMIT = 10_000  # of an error's message, and of each line of its traceback
_SILENCE_SECONDS = 10.0  # of a kernel whose cell has ended, before its last outputs count as lost
_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\r\n])")
_GOES_ON = re.compile(r"[\w+/=-]{16}\s*$")  # a line that may be one of many lines of base64


class BoundedOutputs(PapermillNotebookClient):
    """Papermill's client, with a limit for each cell, and patience for what comes in late."""

    exit_asked = False  # whether the cell has called exit()

    async def run_cell(self, cell: Any, index: int) -> None:
        """Execute the cell until the kernel says that it has sent everything. Raises what async_execute_cell does."""
        self.kept = self.cut = 0
        self.unshown: dict[str, str] = {}
        self.message_id, self.idle = "", True
        self.on_cell_executed, self.raise_on_iopub_timeout = self._take_reply, False
        try:
            await self.async_execute_cell(cell, index)
        finally:
            await self._take_the_rest(cell, index)
            self._show_rest()
            if self.cut:
                _note(cell, f"{size(self.cut)} of output were cut here; a cell keeps {size(OUTPUT_LIMIT)}")

    def _take_reply(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        self.message_id = execute_reply["parent_header"]["msg_id"]
        payload = execute_reply["content"].get("payload") or []
        self.exit_asked = any(item.get("source") == "ask_exit" for item in payload)

    async def _take_the_rest(self, cell: Any, index: int) -> None:
        """A cell that prints much has ended long before its outputs are all here; nbclient would not wait for them."""
        while self.message_id and not self.idle:
            try:
                message = await self.kc.iopub_channel.get_msg(timeout=_SILENCE_SECONDS)
            except Empty:
                return _note(cell, "the kernel did not say that this was all; some output may be missing")
            if message["parent_header"].get("msg_id") == self.message_id:
                with suppress(CellExecutionComplete):
                    self.process_message(message, cell, index)

    def process_message(self, msg: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        if msg["msg_type"] == "status":
            self.idle = msg["content"]["execution_state"] == "idle"
        return super().process_message(msg, *arguments, **options)

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
            content["text"] = self.nb_man.masked(content["text"])[:room]
        self.kept += min(length, room)
        last = outs[-1] if outs and not self.clear_before_next_output else {}
        hooked = self.output_hook_stack[msg["parent_header"].get("msg_id")]
        if kind == "stream" and last.get("name") == content["name"] and not hooked:
            start = last["text"].rfind("\n") + 1
            line = last["text"][start:] + content["text"]
            shown = _OVERWRITTEN.sub("", line)
            self.kept -= len(line) - len(shown)
            last["text"] = last["text"][:start] + shown
            return nbformat.NotebookNode(output_type="stream", **content)
        return super().output(outs, msg, display_id, cell_index)

    def clear_output(self, outs: list[Any], msg: dict[str, Any], cell_index: int) -> None:
        super().clear_output(outs, msg, cell_index)
        if not outs:
            self.kept = 0

    def log_output_message(self, output: Any) -> None:
        """Show an output on the terminal; line by line if there are secrets, since these may come in pieces."""
        if not self.nb_man.mask or output.output_type != "stream":
            return super().log_output_message(self.nb_man.masked(output))
        *lines, rest = (self.unshown.get(output.name, "") + output.text).split("\n")
        while lines and _GOES_ON.search(lines[-1]):
            rest = f"{lines.pop()}\n{rest}"
        self.unshown[output.name] = rest
        self._show(output.name, "\n".join([*lines, ""]))

    def _show_rest(self) -> None:
        for name, text in self.unshown.items():
            self._show(name, text)

    def _show(self, name: str, text: str) -> None:
        if text:
            super().log_output_message(nbformat.v4.new_output("stream", name=name, text=self.nb_man.masked(text)))


def _note(cell: Any, text: str) -> None:
    cell.outputs.append(nbformat.v4.new_output("stream", name="stderr", text=f"[workbench: {text}]\n"))


def _length(output: Mapping[str, Any]) -> int:
    """About how many characters an output, or a message's content, takes."""
    return len(output.get("text", "")) + sum(100 + len(str(value)) for value in output.get("data", {}).values())


def size(number: int) -> str:
    """Bytes for people: 21.3 GiB."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
