"""Take a model that somebody else made.

    model = load_model("theirs.keras")          # to train further and to export, as one's own
    layer = load_model("their_saved_model")     # to answer only: a layer for a model of one's own

Both are scanned before they are opened (scan.py), and a .keras file is opened in Keras' safe mode, too.
"""

from pathlib import Path
from typing import Any

from workbench.errors import UsageError
from workbench.exports.operations import FILE
from workbench.operate.foreign.scan import refuse_unsafe


def load_model(path: str | Path) -> Any:
    """The Keras model of a .keras file; of a SavedModel, a `keras.layers.TFSMLayer` that answers its signature
    `serving_default` and does not learn, to be put into a model of one's own.

    The layer takes a dict by the names of the inputs where Keras or Workbench has written the SavedModel, and the one
    tensor where `tf.saved_model.save` has; it answers a dict by the names of the outputs.

    Raises GateError, with the reasons, for what is not safe to open, and UsageError for anything else than these two.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file; expected a .keras file or the folder of a SavedModel")
    is_saved_model = (path / FILE).is_file()
    if not is_saved_model and path.suffix not in (".keras", ".h5", ".hdf5"):
        raise UsageError(f"{path}: got neither a .keras file nor a folder with {FILE}; expected one of them")
    refuse_unsafe(path)
    import keras

    if is_saved_model:
        return keras.layers.TFSMLayer(str(path), call_endpoint="serving_default")
    return keras.saving.load_model(path, safe_mode=True)
