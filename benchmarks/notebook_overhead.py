"""What a notebook costs beside its own work: workbench run, warm and cold, against what else could execute it.

python benchmarks/notebook_overhead.py          # about a quarter of an hour on two cores

The others start cold (WORKBENCH_COLD=1), as they do without Workbench; in its environment they would start warm too.
The script is the notebook's cells, in one process of Python.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nbformat
from harness import command_seconds, table, take_turns

ROOT = Path(__file__).resolve().parents[1]


def contenders(notebook: Path) -> dict[str, Callable[[], float]]:
    """Each executes `notebook` once, in its folder, and returns the seconds that it took."""
    script = notebook.with_suffix(".py")
    cells = nbformat.read(notebook, as_version=4).cells
    script.write_text(
        "\n\n".join(cell.source for cell in cells if cell.cell_type == "code").replace("globals()", "PARAMETERS")
    )
    if "PARAMETERS" in script.read_text():
        script.write_text(script.read_text().replace("PARAMETERS", parameters(cells)))

    def call(cold: str, program: str, *arguments: str) -> Callable[[], float]:
        return partial(command_seconds, notebook.parent, {"WORKBENCH_COLD": cold}, program, *arguments)

    return {
        "workbench run, warm": call("0", "workbench", "run", notebook.name),
        "workbench run --cold": call("0", "workbench", "run", "--cold", notebook.name),
        "papermill": call("1", "papermill", notebook.name, "out.ipynb"),
        "jupyter execute": call("1", "jupyter", "execute", "--output=out", notebook.name),
        "plain script": call("1", "python", script.name),
    }


def parameters(cells: list[nbformat.NotebookNode]) -> str:
    """A script has no parameters cell to be found: it passes the parameters themselves."""
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    names = [line.split(":")[0] for line in source.splitlines() if ":" in line and not line.startswith(("#", " "))]
    return "{" + ", ".join(f"{name!r}: {name}" for name in names) + "}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="workbench-benchmark-") as folder:
        project = Path(folder)
        shutil.copy(ROOT / "environment.yml", project)
        shutil.copy(ROOT / "notebooks" / "digits.ipynb", project)
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        for name, number in (("empty", 1), ("hundred", 100)):
            cells = [nbformat.v4.new_code_cell(f"x = {n}") for n in range(number)]
            nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), project / f"{name}.ipynb")
        measured = {}
        for name in ("empty", "hundred", "digits"):
            runners = contenders(project / f"{name}.ipynb")
            runners["workbench run, warm"]()  # the first start imports TensorFlow for all that follow
            measured[name] = take_turns(runners, rounds)
            base = measured[name]["papermill"]
            table(f"{name}.ipynb: seconds, of papermill's", [(n, s, s / base) for n, s in measured[name].items()])
        cells_cost = {n: (measured["hundred"][n] - measured["empty"][n]) / 99 for n in measured["empty"]}
        base = cells_cost["papermill"]
        table("one more empty cell: seconds, of papermill's", [(n, s, s / base) for n, s in cells_cost.items()])


if __name__ == "__main__":
    main()
