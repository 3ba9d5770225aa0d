"""The kernel of a notebook that is tested: nbval's, which notices its own death and knows what cells take back.

kernel = Kernel("python3", cwd=str(folder), startup_timeout=60)
screen = Screen(outs)
message = screen.take(kernel.get_message("iopub", timeout=5))       # None: it has been dealt with
"""

import os
import time
from queue import Empty
from typing import Any

from nbclient.exceptions import DeadKernelError
from nbval.kernel import RunningKernel, start_new_kernel

_LOOK_SECONDS = 0.5  # how often to see whether the kernel lives, while a cell says nothing


class Kernel(RunningKernel):
    """nbval's kernel, but that a dead one is not waited for, and that nothing of it stays open.

    Raises RuntimeError when it does not start within `startup_timeout` seconds.
    """

    def __init__(self, kernel_name: str, cwd: str, startup_timeout: float) -> None:
        with open(os.devnull, "wb") as nowhere:  # for what the kernel's process prints beside its cells' outputs
            self.km, self.kc = start_new_kernel(startup_timeout, kernel_name, stderr=nowhere, cwd=cwd)
        self._ensure_iopub_up()

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        """Wait until the cell has ended. Raises queue.Empty after `timeout` seconds, DeadKernelError if it cannot."""
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        while True:
            try:
                return super().await_reply(msg_id, timeout=min(_LOOK_SECONDS, max(deadline - time.monotonic(), 0.0)))
            except Empty:
                if not self.is_alive():
                    raise DeadKernelError("the kernel died") from None
                if time.monotonic() >= deadline:
                    raise

    def stop(self) -> None:
        """End the kernel, unless that has been done; of one that has died, close what was for it."""
        if hasattr(self, "km"):
            super().stop()

    def execute_silently(self, code: str) -> None:
        """Execute what is no cell of the notebook."""
        self.await_idle(self.kc.execute(code, silent=True, store_history=False, stop_on_error=False), 60)


class Screen:
    """What a cell's messages say of its earlier outputs, done to nbval's list of them, as Jupyter does it."""

    def __init__(self, outputs: list[Any]) -> None:
        self.outputs = outputs
        self.shown: dict[str, list[int]] = {}  # places in the list, by display id
        self.clear_next = False

    def take(self, message: Any) -> Any | None:
        """The message, for nbval to add to the list; None if it was about what is there already."""
        kind, content = message["msg_type"], message["content"]
        identifier = content.get("transient", {}).get("display_id")
        if kind == "clear_output":
            self.clear_next = True
            if not content["wait"]:
                self._clear()
            return None
        if kind == "update_display_data":
            for place in self.shown.get(identifier, []):
                self.outputs[place].update(data=content["data"], metadata=content["metadata"])
            return None
        if kind in ("stream", "display_data", "execute_result", "error"):
            self._clear()
            if identifier:
                self.shown.setdefault(identifier, []).append(len(self.outputs))
        return message

    def _clear(self) -> None:
        if self.clear_next:
            self.outputs.clear()
            self.shown.clear()
            self.clear_next = False
