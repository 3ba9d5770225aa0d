"""Run every notebook as JupyterLab would and store its outputs, which tests/test_notebooks.py compares with.

make references        # then read the difference before you commit it
"""

import shutil
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as project:
            shutil.copy(ROOT / "environment.yml", project)
            folder = Path(project) / "notebooks"
            folder.mkdir()
            notebook = nbformat.read(path, as_version=4)
            NotebookClient(
                notebook, record_timing=False, coalesce_streams=True, resources={"metadata": {"path": str(folder)}}
            ).execute()
        for cell in notebook.cells:  # TensorFlow's start-up messages tell of the machine, not of the notebook
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        notebook.metadata.language_info = {"name": "python"}
        nbformat.write(notebook, path)
        print(f"{path.relative_to(ROOT)}: references renewed")


if __name__ == "__main__":
    main()
