"""What callbacks remember, taken from one and given to another."""

from typing import Any

import keras
import numpy as np
import pytest

from workbench.errors import UsageError
from workbench.train.callback_state import CHANGED_BY_TRAINING, capture, restore

X = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
Y = np.random.default_rng(1).normal(size=60).astype("float32")  # nothing to learn: the validation loss rises soon


def callbacks(folder: Any) -> list[keras.callbacks.Callback]:
    return [
        keras.callbacks.EarlyStopping("val_loss", patience=9, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, cooldown=2),
        keras.callbacks.ModelCheckpoint(folder / "best.keras", "val_loss", save_best_only=True),
        keras.callbacks.History(),
    ]


def trained(own: list[keras.callbacks.Callback]) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.02), "mse")
    model.fit(X[:40], Y[:40], validation_data=(X[40:], Y[40:]), epochs=5, callbacks=own, verbose=0, batch_size=8)
    return model


def test_every_attribute_that_training_changes_is_known(tmp_path: Any) -> None:
    """A release of Keras that gives one of these callbacks another is noticed here."""
    # What follows from the model and the configuration: with the first metric it is known which way is better.
    not_state = {"_model", "params", "monitor_op", "min_delta"}
    before = [dict(vars(callback)) for callback in callbacks(tmp_path)]
    own = callbacks(tmp_path)
    trained(own)
    for old, callback in zip(before, own, strict=True):
        now = vars(callback)
        changed = {name for name in now if name not in old or repr(old[name]) != repr(now[name])} - not_state
        known = next(names for kind, names in CHANGED_BY_TRAINING.items() if isinstance(callback, kind))
        assert changed <= set(known), type(callback).__name__


def test_a_new_callback_takes_the_state_of_an_old_one(tmp_path: Any) -> None:
    old, new = callbacks(tmp_path), callbacks(tmp_path)
    trained(old)
    arrays: dict[str, Any] = {}
    found = capture(old, arrays)
    restore(new, found, arrays)
    stopping, plateau, checkpoint, history = new
    assert (stopping.wait, stopping.best, stopping.best_epoch) == (old[0].wait, old[0].best, old[0].best_epoch)
    assert stopping.wait > 0
    assert all(np.array_equal(a, b) for a, b in zip(stopping.best_weights, old[0].best_weights, strict=True))
    assert (plateau.best, plateau.cooldown_counter) == (old[1].best, old[1].cooldown_counter)
    assert checkpoint.best == old[2].best
    assert history.history == old[3].history


def test_an_object_tells_its_state_itself() -> None:
    class Own:
        def __init__(self) -> None:
            self.values: dict[str, Any] = {}

        def get_state(self) -> dict[str, Any]:
            return {"n": np.int64(3), "text": "x", "none": None, "deep": {"rows": [np.arange(3), 1.5]}}

        def set_state(self, values: dict[str, Any]) -> None:
            self.values = values

    thing, arrays = Own(), dict[str, Any]()
    restore([thing], capture([thing], arrays), arrays)
    assert (thing.values["n"], thing.values["text"], thing.values["none"]) == (3, "x", None)
    assert thing.values["deep"]["rows"][0].tolist() == [0, 1, 2]
    assert thing.values["deep"]["rows"][1] == 1.5


def test_other_callbacks_than_the_states_are_refused(tmp_path: Any) -> None:
    arrays: dict[str, Any] = {}
    found = capture(callbacks(tmp_path)[:1], arrays)
    with pytest.raises(UsageError, match="of these callbacks: EarlyStopping; now there are none"):
        restore([], found, arrays)
