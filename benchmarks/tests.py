"""What testing notebooks costs: workbench test against pytest with nbval and with nbmake.

python benchmarks/tests.py          # about ten minutes on two cores

Twenty notebooks, ten that do nothing and ten that import TensorFlow and train for two seconds, two at a time (nbval and
nbmake with pytest-xdist, and no other plugin). The rivals' kernels start cold (WORKBENCH_COLD=1), as they do without
Workbench; in its environment they would start warm too. What our first kernel takes, which imports TensorFlow for all
that follow, is a line of its own.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import nbformat
from harness import command_seconds, table, take_turns

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
TRAIN = """
import time
import keras
import numpy as np

model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(1)])
model.compile("adam", "mse")
ends = time.monotonic() + 2
while time.monotonic() < ends:
    model.fit(np.zeros((512, 8)), np.zeros((512, 1)), verbose=0)
"""


def make_project(folder: Path) -> None:
    (folder / "environment.yml").touch()
    (folder / "notebooks").mkdir()
    for number in range(10):
        for name, cells in (("empty", ["x = 1"]), ("train", [TRAIN.strip(), "print(model.count_params())"])):
            code = [nbformat.v4.new_code_cell(source) for source in cells]
            notebook = nbformat.v4.new_notebook(
                cells=[nbformat.v4.new_markdown_cell(f"# {name}"), *code], metadata=KERNEL
            )
            nbformat.write(notebook, folder / "notebooks" / f"{name}_{number}.ipynb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="workbench-benchmark-") as folder:
        project = Path(folder)
        make_project(project)

        def call(cold: str, program: str, *arguments: str) -> float:
            variables = {"WORKBENCH_COLD": cold, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
            return command_seconds(project, variables, program, *arguments)

        xdist = ("-p", "xdist", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider")
        call("0", "workbench", "kernel", "stop")
        first = call("0", "workbench", "test", "notebooks/empty_0.ipynb")
        again = call("0", "workbench", "test", "notebooks/empty_0.ipynb")
        measured = take_turns(
            {
                "workbench test --jobs 2": partial(call, "0", "workbench", "test", "--jobs", "2"),
                "workbench test --jobs 2, cold": partial(call, "1", "workbench", "test", "--jobs", "2"),
                "pytest --nbval -n 2": partial(call, "1", "pytest", "-p", "nbval", "--nbval", *xdist, "notebooks"),
                "pytest --nbmake -n 2": partial(call, "1", "pytest", "-p", "nbmake", "--nbmake", *xdist, "notebooks"),
            },
            rounds,
        )
    faster = min(measured["pytest --nbval -n 2"], measured["pytest --nbmake -n 2"])
    rows = [(name, value, value / faster) for name, value in measured.items()]
    rows.append(("our first kernel, once in a while", first - again, (first - again) / faster))
    table("twenty notebooks: seconds, of the faster rival's", rows)


if __name__ == "__main__":
    main()
