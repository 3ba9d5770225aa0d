"""What lies beside a .tflite, used without this project."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from workbench.exports import sample as samples
from workbench.exports import saved_model
from workbench.exports.write import write

X = np.random.default_rng(0).uniform(0, 16, (208, 4, 4, 1)).astype("float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with int8 inputs and outputs."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4, 4, 1), name="image"), layers.Flatten(), layers.Dense(2, name="score")])
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("bundle")
    saved_model.write(model, X, source, "test")
    write("litert_int8_io", source, folder, samples.record(model, X, ["a", "b"], None, None), None, "test")
    return folder


def test_the_sample_gives_its_outputs_in_the_runtime_that_a_phone_has(folder: Path) -> None:
    sample = json.loads((folder / "sample.json").read_text())
    runner = Interpreter(str(folder / "model.tflite")).get_signature_runner("serving_default")
    answer = runner(image=np.array(sample["inputs"]["image"], "int8"))["score"]
    assert answer.tolist() == sample["outputs"]["score"]


def test_the_signature_tells_how_whole_numbers_become_real_ones(folder: Path) -> None:
    told = json.loads((folder / "signature.json").read_text())["inputs"]["image"]
    assert (told["shape"], told["dtype"], told["zero_point"]) == ([None, 4, 4, 1], "int8", -128)
    assert told["scale"] == pytest.approx(16 / 255, rel=0.01)


def test_checksums_are_those_of_sha256sum(folder: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == len(list(folder.iterdir())) - 1


@pytest.mark.parametrize("compiler", ["gcc", "g++"])
def test_a_compiler_finds_the_model_in_the_header(compiler: str, folder: Path, tmp_path: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}: apt-get install build-essential")
    source = (
        '#include <stdio.h>\n#include "model.h"\nint main() { fwrite(model_tflite, 1, model_tflite_len, stdout); }\n'
    )
    (tmp_path / "main.c").write_text(source)
    program = tmp_path / "main"
    subprocess.run([compiler, "-Wall", "-Werror", f"-I{folder}", tmp_path / "main.c", "-o", program], check=True)
    written = subprocess.run([program], capture_output=True, check=True).stdout
    assert written == (folder / "model.tflite").read_bytes()


def test_the_card_is_for_people(folder: Path) -> None:
    card = (folder / "card.md").read_text()
    assert card.startswith("# test: litert_int8_io\n")
    assert re.search(r"\| `image` \| int8 \| any, 4, 4, 1 \| 0\.0\d+, -128 \|", card)
    assert "follows labels.json: a, b." in card
