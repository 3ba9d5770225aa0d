"""JupyterLab on the project, as `workbench lab` starts it.

    workbench lab                            # opens the project's notebooks/
    workbench lab notebooks/digits.ipynb     # opens this one

The server's root is the project, so that what runs leave under outputs/ can be opened as well. It listens on loopback
only, under Jupyter's random token. JupyterLab's question about news and its search for updates are off: jupyter/ beside
this module holds that as defaults, which a setting made in JupyterLab overrides.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from workbench import context
from workbench.errors import UsageError

_DEFAULTS = Path(__file__).with_name("jupyter")  # a folder of Jupyter configuration


def open_lab(notebook: Path | None = None, browser: bool = True, port: int | None = None) -> NoReturn:
    """Become JupyterLab: this process' id, terminal and signals are the server's from here on."""
    arguments = [sys.executable, "-m", "jupyterlab", *_options(notebook, browser, port)]
    sys.stdout.flush()
    os.execve(sys.executable, arguments, _environment())


def _options(notebook: Path | None, browser: bool, port: int | None) -> list[str]:
    root = context.project_root()
    options = [
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.root_dir={root}",
        # Not Jupyter's argument for a file: only the browser that Jupyter itself starts would open that.
        f"--LabApp.default_url={_page(root, notebook)}",
    ]
    if port is not None:
        options.append(f"--ServerApp.port={port}")
    if not browser:
        options.append("--no-browser")
    if os.geteuid() == 0:  # Jupyter does not start for root without
        options.append("--allow-root")
    return options


def _page(root: Path, notebook: Path | None) -> str:
    """The address, within the server, of the notebook, else of the folder notebooks/, else of JupyterLab."""
    if notebook is None:
        return "/lab/tree/notebooks" if (root / "notebooks").is_dir() else "/lab"
    if not notebook.is_file():
        raise UsageError(f"{notebook}: no such file; expected a notebook of the project {root}")
    path = notebook.parent.resolve() / notebook.name  # a link in the project is opened where it stands
    if not path.is_relative_to(root):
        raise UsageError(
            f"{notebook}: lies outside the project {root}, which is all that JupyterLab would show; "
            "change to the notebook's own project first, or copy it into this one"
        )
    return "/lab/tree/" + quote(path.relative_to(root).as_posix())


def _environment() -> dict[str, str]:
    """This process' environment, with our defaults after the folders that the user named in it."""
    environment = context.environment()
    folders = [environment.get("JUPYTER_CONFIG_PATH"), str(_DEFAULTS)]
    return {**environment, "JUPYTER_CONFIG_PATH": os.pathsep.join(folder for folder in folders if folder)}
