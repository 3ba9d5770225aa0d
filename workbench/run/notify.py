"""Let the MLflow mirror know that something on the disk is new.

    start_mirror()      # by close_run and by the launchers; does nothing unless MLFLOW_TRACKING_URI is set

It returns at once. A process that outlives this one does the sending, workbench/operate/mirror/catch_up.py: no run
waits for a server, or fails with one.
"""

import subprocess
import sys
from contextlib import suppress

from workbench import context

# The shell ends at once, so that the process is nobody's child: none has to wait for it, now or later.
_IN_BACKGROUND = '"$@" </dev/null >>"$0" 2>&1 &'


def start_mirror() -> None:
    """Start a process that sends to MLflow what that does not have yet; its words go to outputs/mirror.log."""
    if not context.variable("MLFLOW_TRACKING_URI"):
        return
    root = context.project_root()
    command = [sys.executable, "-P", "-m", "workbench.operate.mirror.catch_up"]
    with suppress(OSError):  # what is not sent now is sent next time
        (root / "outputs").mkdir(exist_ok=True)
        subprocess.run(
            ["/bin/sh", "-c", _IN_BACKGROUND, str(root / "outputs" / "mirror.log"), *command],
            cwd=root,
            env=context.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # neither Ctrl-C nor the end of a terminal is meant for it
            check=False,
        )
