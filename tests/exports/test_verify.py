"""Verification of what a run exported, with its fresh process."""

import shutil

import keras
import numpy as np
import pytest

from workbench.errors import GateError, UsageError
from workbench.exports.artefacts import export
from workbench.exports.verify import verify
from workbench.run.runs import Run


def test_verify_proves_again_and_sees_a_changed_or_missing_artefact(run: Run) -> None:
    with pytest.raises(UsageError, match="has no exported artefact"):
        verify(run)
    sample = np.random.default_rng(0).normal(size=(200, 3)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    first = export(run, model, sample, labels=["a", "b"])
    again = verify(run)
    assert again["saved_model"]["max_abs_difference"] == first["saved_model"]["max_abs_difference"]

    folder = run.path / "export" / "saved_model"
    data = folder / "variables" / "variables.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(GateError, match=r"has sha256 .* recorded was"):
        verify(run)
    shutil.rmtree(folder)
    with pytest.raises(GateError, match="is missing; recorded was"):
        verify(run)
