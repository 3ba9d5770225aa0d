"""What the process does that is asked for a version's answers: load its SavedModel, and let it predict.

python -m workbench.exports.answers saved_model FOLDER SAMPLE.npz ANSWERS.npz
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from workbench.exports.runtime import RefusedError, load, part, tell
from workbench.exports.runtimes.saved_model import open_saved_model


def answer(folder: Path, sample: Path, out: Path) -> dict[str, Any]:
    """Write the answers to the sample's inputs into `out`, by output name. Raises RefusedError for other inputs."""
    inputs = part(load(sample), "inputs")
    with open_saved_model(folder) as model:
        if model.inputs.keys() != inputs.keys():
            raise RefusedError(f"its inputs are {sorted(model.inputs)}; the sample's are {sorted(inputs)}")
        try:
            answers = model.call(inputs)
        except model.refusals as error:
            raise RefusedError(f"it does not take the sample: {error}") from error
    np.savez(out, allow_pickle=False, **answers)
    return {"rows": len(next(iter(answers.values())))}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("format")
    parser.add_argument("folder", type=Path)
    parser.add_argument("sample", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    tell(lambda: answer(given.folder, given.sample, given.out))


if __name__ == "__main__":
    main()
