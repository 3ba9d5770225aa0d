"""TensorBoard of a run, or of all runs of a name, below the cell that asks for it.

    tensorboard(run)           # its curves
    tensorboard("digits")      # all runs called digits: their curves, and their parameters in the HParams tab

In JupyterLab the server is a thread of the kernel, and ends with it. Elsewhere the command to run is printed.
"""

import secrets
import shlex
from functools import cache
from pathlib import Path

from workbench import context
from workbench.run.runs import Run, find_run, runs_folder


def tensorboard(run: Run | str) -> None:
    """Show TensorBoard of `run`, or of all runs of that name; in a batch run print the command that shows it.

    The browser must reach the kernel's machine as 127.0.0.1. Raises UsageError for a name that no run has.
    """
    found = run if isinstance(run, Run) else find_run(run)
    # Not the folder tensorboard/ in it: where a session is the very folder that it serves, HParams finds no metrics.
    folder = runs_folder() / found.name if run == found.name else found.path
    root = context.project_root()
    shown = folder.relative_to(root) if folder.is_relative_to(root) else folder
    command = f"tensorboard --logdir {shlex.quote(str(shown))}"
    if not context.in_jupyterlab():
        print(command)
        return
    from IPython.display import IFrame, display

    url = _serve(folder)
    print(f"TensorBoard until this kernel ends: {url}")
    frame = IFrame(url, width="100%", height=700)
    display({"text/html": frame._repr_html_(), "text/plain": command}, raw=True)


@cache
def _serve(folder: Path) -> str:
    """Start TensorBoard in a thread of this process; its address."""
    from tensorboard import program

    # Any local process may get the port later, and a saved notebook still shows the address: a web server there finds
    # nothing under this path. Whoever does not know it finds nothing here.
    path = f"/{secrets.token_urlsafe(12)}"
    # Without the data server: Jupyter interrupts the kernel's whole process group, which would kill that process.
    options = ["--host=127.0.0.1", "--port=0", "--load_fast=false", f"--path_prefix={path}"]
    board = program.TensorBoard()
    board.configure(["tensorboard", f"--logdir={folder}", *options])
    return str(board.launch())
