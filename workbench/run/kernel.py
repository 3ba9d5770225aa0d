"""Warm kernels: a notebook starts with TensorFlow and Keras imported already.

    workbench kernel install      # `make install` does it: from now on the environment's kernel `python3` starts warm
    workbench kernel status
    workbench kernel stop

Jupyter finds `Provisioner` through the kernelspec, so that `workbench run`, papermill, nbval and JupyterLab all start
warm; a notebook's kernel is still called `python3`, which opens anywhere. How it works is in warm.py.
"""

import asyncio
import functools
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets.config import Application

from workbench import files
from workbench.errors import UsageError
from workbench.run import warm

_LINGER_SECONDS = 0.1  # how long jupyter_client.KernelManager keeps trying to deliver a request
_KNOWN_OPTIONS = ("env", "cwd", "stdout", "stderr", "kernel_id", "extra_arguments")  # else, what Popen can do besides


class Provisioner(LocalProvisioner):
    """Starts kernels for Jupyter: warm where it can, else as its parent class does.

    Registered in pyproject.toml under the entry point `jupyter_client.kernel_provisioners`.
    """

    _warm: warm.Process | None = None

    async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
        # TensorFlow's start-up messages are no output of a cell, unless somebody asks for them.
        env = options["env"] = {"TF_CPP_MIN_LOG_LEVEL": "3", **options["env"]}
        cwd = os.path.abspath(options.get("cwd") or "")
        try:
            if cmd[:3] != [sys.executable, "-m", "ipykernel_launcher"]:
                raise warm.UnavailableError(f"it is started by {cmd[0]}")
            if unknown := sorted(name for name, value in options.items() if value and name not in _KNOWN_OPTIONS):
                raise warm.UnavailableError(f"it is to be started with {', '.join(unknown)}")
            output = [_descriptor(options.get(name), number) for number, name in ((1, "stdout"), (2, "stderr"))]
            self._warm = await warm.start_async(cmd[2], cmd[3:], env, cwd, *output)
        except warm.UnavailableError as reason:
            if not isinstance(reason, warm.SwitchedOffError):
                _say_once(f"workbench: the kernel starts cold: {reason}")
            return await super().launch_kernel(cmd, **options)
        self.process = self._warm  # type: ignore[assignment]  # it does what a Popen does, as far as is asked here
        self.pid = self.pgid = self._warm.pid  # it leads a group of its own
        self.cwd = cwd
        return self.connection_info

    async def cleanup(self, restart: bool = False) -> None:
        await super().cleanup(restart)
        if self._warm:
            self._warm.close()
            self._warm = None
            if restart:  # a request to shut down that came too late for the old kernel goes to who listens next,
                await asyncio.sleep(2 * _LINGER_SECONDS)  # and a warm one may be there that soon


def install() -> Path:
    """Make this environment's kernel `python3` start warm. Returns the kernelspec's file."""
    path = Path(sys.prefix, "share", "jupyter", "kernels", "python3", "kernel.json")
    if not path.is_file():
        raise UsageError(f"{path}: no such kernelspec; install ipykernel into this environment first")
    spec = json.loads(path.read_text(encoding="utf-8"))
    spec.setdefault("metadata", {})["kernel_provisioner"] = {"provisioner_name": "workbench"}
    files.write_json(path, spec)
    return path


def _descriptor(stream: Any, default: int) -> int:
    """The file descriptor that subprocess.Popen would give a child for this argument."""
    if stream is None:
        return default
    if isinstance(stream, int) and stream < 0:
        raise warm.UnavailableError("its output is to go to a pipe, or nowhere")
    return stream if isinstance(stream, int) else int(stream.fileno())


@functools.cache
def _say_once(message: str) -> None:
    log = Application.instance().log if Application.initialized() else logging.getLogger("workbench")
    log.warning(message)
