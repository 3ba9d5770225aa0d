"""Write down that a run's process has died: nobody else is left to do it.

record = settle(run)       # read_record(run), and what is on the disk says the same
"""

import errno
import json
from typing import Any

from workbench import files
from workbench.run.runs import Run, read_record, update_record


def settle(run: Run) -> dict[str, Any]:
    """The run's record. If it shows that the process has died, run.json and the notebook say so from now on.

    In a folder that this user may only read, the record alone does.
    """
    record = read_record(run)
    if record["status"] in ("lost", "interrupted"):
        try:
            _write_down(run, record)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
    return record


def _write_down(run: Run, record: dict[str, Any]) -> None:
    if record["status"] == json.loads((run.path / "run.json").read_text(encoding="utf-8"))["status"]:
        return
    notebook = run.path / "notebook.ipynb"
    if notebook.exists():
        content = json.loads(notebook.read_text(encoding="utf-8"))
        content["metadata"]["papermill"] |= {"status": record["status"], "reason": record["reason"]}
        for cell in content["cells"]:
            if cell["metadata"]["papermill"]["status"] == "running":
                cell["metadata"]["papermill"] |= {"status": "interrupted", "exception": True}
                error = {"ename": "LostRun", "evalue": record["reason"], "traceback": [f"LostRun: {record['reason']}"]}
                cell["outputs"].append({"output_type": "error", **error})
        files.write_text(notebook, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    update_record(run, status=record["status"], reason=record["reason"])
