"""The papermill engine that executes notebooks and says truly how they ended.

    papermill --engine workbench IN.ipynb OUT.ipynb        # `workbench run` uses it too

A cell ends `completed`, `failed` or `interrupted`; those that were never reached stay `pending`. The notebook's own
state and its reason stand beside, in the metadata `papermill`. A cell that failed holds an error output whatever ended
it: an exception, a time-out, the death of the kernel. Each save is atomic and holds every cell that has finished.

Papermill imports this module while it is being imported itself: `import papermill` comes first.
"""

import asyncio
import signal
import subprocess
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nbformat
import zmq.asyncio
from nbclient.exceptions import CellExecutionError, DeadKernelError
from papermill.engines import NBClientEngine

from workbench.run.executed import Executed
from workbench.run.notebook import heading
from workbench.run.outputs import BoundedOutputs, size
from workbench.run.signals import signals_to, stop_for

GRACE_SECONDS = 5.0  # for a cell to end after an interrupt, before its kernel is killed


class Engine(NBClientEngine):
    """Registered in pyproject.toml under the entry point `papermill.engine`."""

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | None = None,
        progress_bar: bool = True,
        log_output: bool = False,
        autosave_cell_every: int = 30,
        **options: Any,
    ) -> Any:
        """Execute `nb` as papermill asks, and return it for papermill to raise what its cells have raised.

        Beside papermill's own options there are those of `run_notebook`: `environment` and `folder` of the kernel, by
        default this process' own; `source`, the input's path; `log`, a file for what the kernel's process prints beside
        its cells' outputs; `run_timeout` in seconds, as papermill's `execution_timeout` of a cell; `mask`, which hides
        secrets; `on_cell`, called before a cell runs with its number, the number of cells, and the heading it stands
        under; and `on_end`, called with the notebook's state and the reason in words.

        Raises KeyboardInterrupt after SIGINT and SystemExit after SIGTERM and SIGHUP, when all is saved.
        """
        if source := options.pop("source", None):
            nb.metadata.papermill["input_path"] = str(source)
        on_end = options.pop("on_end", lambda status, reason: None)
        executed = Executed(nb, output_path, options.pop("mask", None), progress_bar, log_output, autosave_cell_every)
        try:
            executed.notebook_start()
            client = _Client(executed, kernel_name, log_output, **options)
            # In a thread, since whoever calls may be a notebook itself, with a running event loop.
            with ThreadPoolExecutor(1) as pool, signals_to(client.interrupt):
                end = pool.submit(asyncio.run, client.run()).result()
        except BaseException as error:
            end = _End("failed", reason=executed.masked(f"{type(error).__name__}: {error}"))
            raise
        finally:
            on_end(end.status, end.reason)
            executed.close(end.status, end.reason)
        if end.signal:
            raise stop_for(end.signal, end.reason)
        return executed.for_papermill()


@dataclass(frozen=True)
class _End:
    """How the notebook came to its end."""

    status: str
    error: str = ""  # what the cell's error output says: the name of an exception's class, and its message
    message: str = ""
    signal: int = 0
    reason: str = ""


class _StoppedError(Exception):
    """What was going on has been stopped from outside, and did not end by itself in time."""


class _Client(BoundedOutputs):
    """Executes the cells one by one, watches the kernel, and leaves nothing behind."""

    def __init__(
        self,
        executed: Executed,
        kernel_name: str,
        log_output: bool,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        log: Path | None = None,
        on_cell: Callable[[int, int, str], None] | None = None,
        start_timeout: int = 60,
        execution_timeout: float | None = None,
        run_timeout: float | None = None,
        input_path: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(
            executed,
            kernel_name=kernel_name,
            log_output=log_output,
            startup_timeout=start_timeout,
            resources={"metadata": {"path": str(folder)}} if folder else {},
            **options,
        )
        self.environment, self.log_file = environment, log
        self.on_cell = on_cell or (lambda number, total, heading: None)
        self.cell_timeout, self.run_timeout = execution_timeout, run_timeout
        self.peak_bytes = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.early_signal = 0
        self.sockets: zmq.asyncio.Context | None = None
        self.guard: subprocess.Popen[bytes] | None = None
        self.unresponsive = False

    async def run(self) -> _End:
        self.reset_execution_trackers()
        loop = asyncio.get_running_loop()
        self.stopped: asyncio.Future[_End] = loop.create_future()
        self.hurried = asyncio.Event()
        self.loop = loop
        if self.early_signal:
            self.interrupt(self.early_signal)
        if self.run_timeout:
            self._stop_after(self.run_timeout, f"the notebook ran longer than {self.run_timeout:g} s")
        watcher = asyncio.create_task(self._watch())
        try:
            await self._start_kernel()
            return await self._execute_cells()
        except _StoppedError:
            end = self.stopped.result()
            return replace(end, reason=f"{end.message} before its kernel was ready")
        finally:
            watcher.cancel()
            await self._end_kernel()

    # --- what happens in the kernel ----------------------------------------------------------------------------------

    async def _start_kernel(self) -> None:
        options: dict[str, Any] = {"env": dict(self.environment)} if self.environment else {}
        self.km = self.create_kernel_manager()
        self.km.shutdown_wait_time = GRACE_SECONDS / 2
        with open(self.log_file, "ab") if self.log_file else nullcontext() as log:
            await self._unless_stopped(self.async_start_new_kernel(**options, stdout=log, stderr=log))
        if group := getattr(self.km.provisioner, "pgid", None):
            self.guard = _start_guard(group)
        # No limit on what waits there: the message that were dropped could be the one that a cell has ended.
        self.sockets = zmq.asyncio.Context()
        self.sockets.rcvhwm = 0
        self.kc = self.km.client(context=self.sockets)
        self.kc.start_channels()
        await self._unless_stopped(self.kc.wait_for_ready(timeout=self.startup_timeout))
        info = await self._unless_stopped(self.async_wait_for_reply(self.kc.kernel_info()))
        self.nb.metadata["language_info"] = info["content"]["language_info"]

    async def _execute_cells(self) -> _End:
        for index, cell in enumerate(self.nb.cells):
            self.on_cell(index + 1, len(self.nb.cells), heading(self.nb.cells[: index + 1]))
            end = await self._execute(cell, index)
            self.set_widgets_metadata()
            if end:
                return end
        return _End("completed")

    async def _execute(self, cell: Any, index: int) -> _End | None:
        """Run one cell; returns None if the next is to follow."""
        self.nb_man.cell_start(cell, index)
        timer = None
        if self.cell_timeout:
            timer = self._stop_after(self.cell_timeout, f"the cell ran longer than {self.cell_timeout:g} s")
        end = None
        try:
            await self._unless_stopped(self.run_cell(cell, index), interrupt=True)
            if self.exit_asked:
                end = _End("completed", "SystemExit")
        except CellExecutionError as error:
            clean = error.ename == "SystemExit" and error.evalue in ("", "0", "None")
            end = _End("completed" if clean else "failed", error.ename, error.evalue)
        except DeadKernelError:
            end = _End("failed", "DeadKernelError", await self._cause_of_death())
        except _StoppedError:
            end = self.stopped.result()
        finally:
            if timer:
                timer.cancel()
        status = end.status if end else "completed"
        if self.stopped.done():
            stop = self.stopped.result()
            if end or not stop.signal:  # else the cell took the interrupt and ended well
                status = stop.status
            end = stop
        if end:
            cell.execution_count = number = cell.execution_count or self.code_cells_executed
            if status != "completed":
                _put_error(cell, end.error, end.message)
            first = (self.nb_man.masked(end.message).splitlines() or [""])[0][:300]
            reason = {
                "completed": f"ended by {end.error} in cell {number}",
                "failed": f"cell {number} failed: {end.error}: {first}",
                "interrupted": f"{first} in cell {number}",
            }[end.status]
            end = replace(end, reason=self.nb_man.masked(reason))
        self.nb_man.cell_end(cell, status)
        return end

    async def _end_kernel(self) -> None:
        """Leave no process: the kernel is asked, then killed, and with it whatever it has started."""
        if self.kc:
            self.kc.stop_channels()
        try:
            if self.km and self.km.provisioner and await self.km.is_alive():
                await self.km.shutdown_kernel(now=self.unresponsive)
        finally:
            if self.guard:
                self.guard.communicate()
            if self.km:
                await self.km.cleanup_resources()
            if self.sockets:
                self.sockets.destroy(linger=0)

    # --- what stops it from outside ----------------------------------------------------------------------------------

    def interrupt(self, number: int) -> None:
        """Take a signal, in whatever thread: the first interrupts the cell, the second kills its kernel."""
        self.early_signal = number
        if self.loop:
            name = signal.Signals(number).name
            end = _End("interrupted", "KeyboardInterrupt", f"interrupted by {name}", number)
            self.loop.call_soon_threadsafe(self._stop, end)

    def _stop(self, end: _End) -> None:
        if self.stopped.done():
            if end.signal:
                self.hurried.set()
        else:
            self.stopped.set_result(end)

    def _stop_after(self, seconds: float, reason: str) -> asyncio.TimerHandle:
        assert self.loop
        return self.loop.call_later(seconds, self._stop, _End("failed", "TimeoutError", reason))

    async def _unless_stopped(self, work: Coroutine[Any, Any, Any], interrupt: bool = False) -> Any:
        """The result of `work`. When all is to stop it is interrupted, if that is possible, and then given up."""
        task = asyncio.create_task(work)
        await asyncio.wait({task, self.stopped}, return_when=asyncio.FIRST_COMPLETED)
        if interrupt and not task.done():
            hurried = asyncio.create_task(self.hurried.wait())
            await self.km.interrupt_kernel()
            await asyncio.wait({task, hurried}, timeout=GRACE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
        if not task.done():
            self.unresponsive = True
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise _StoppedError
        return task.result()

    async def _watch(self) -> None:
        """Know the kernel's peak of memory, for when it is gone; notice when its results have nowhere to go."""
        while True:
            pid = self.km and self.km.provisioner and getattr(self.km.provisioner, "pid", None)
            with suppress(OSError, IndexError, ValueError):  # no such process any more, or no /proc
                status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
                self.peak_bytes = max(self.peak_bytes, int(status.split("VmHWM:")[1].split()[0]) * 1024)
            # What comes in while jupyter_client sends, as to an Output widget, may wake nobody: it sends past
            # zmq.asyncio, which then does not learn of the event. To be asked for events makes it look.
            if self.kc and self.kc.channels_running:
                for channel in (self.kc.shell_channel, self.kc.iopub_channel):
                    channel.socket.get(zmq.EVENTS)
            folder = self.nb_man.folder
            if folder and not folder.exists():
                self._stop(_End("failed", "FileNotFoundError", f"{folder} was removed while the notebook ran"))
            await asyncio.sleep(0.2)

    async def _cause_of_death(self) -> str:
        code = await self.km.provisioner.poll()
        if code is None or code >= 0:
            return f"kernel exited with code {code}"
        if code == -signal.SIGKILL:
            return f"kernel killed by signal 9, perhaps out of memory: peak {size(self.peak_bytes)}"
        return f"kernel killed by signal {-code} ({signal.strsignal(-code)})"


def _start_guard(group: int) -> subprocess.Popen[bytes]:
    """Kills the process group when its stdin is closed: by this process, or by its death, whatever the cause."""
    return subprocess.Popen(
        ["sh", "-c", 'read -r _; kill -9 "-$0"', str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # else Ctrl-C on the terminal would reach it
    )


def _put_error(cell: Any, name: str, message: str) -> None:
    """Let the cell hold the error that ended it; a traceback that the kernel has sent stays."""
    errors = [out for out in cell.outputs if out.output_type == "error"]
    if errors and errors[-1].ename == name and message.startswith(errors[-1].evalue or "\0"):
        return
    if not errors:
        errors = [nbformat.v4.new_output("error", ename="", evalue="", traceback=[])]
        cell.outputs.extend(errors)
    errors[-1].update(ename=name, evalue=message, traceback=[*errors[-1].traceback, f"{name}: {message}"])
