"""What callbacks remember from epoch to epoch, as JSON and arrays.

    found = capture(callbacks, arrays)      # JSON; arrays go into the dict `arrays`, which it names
    restore(callbacks, found, arrays)

Keras' own callbacks have no way to tell it, so it is known here which of their attributes training changes. Any other
object says it by `get_state()`, a dict of numbers, texts, lists, dicts and arrays, which `set_state(dict)` takes back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from workbench.errors import UsageError

CHANGED_BY_TRAINING = {
    keras.callbacks.EarlyStopping: ("best", "best_epoch", "best_weights", "stopped_epoch", "wait"),
    keras.callbacks.ReduceLROnPlateau: ("best", "cooldown_counter", "wait"),
    keras.callbacks.ModelCheckpoint: ("best", "_batches_seen_since_last_saving", "_current_epoch", "_last_batch_seen"),
    keras.callbacks.History: ("epoch", "history"),
}
_ARRAY = "__array__"


def has_state(thing: Any) -> bool:
    return hasattr(thing, "get_state") or isinstance(thing, tuple(CHANGED_BY_TRAINING))


def capture(objects: Sequence[Any], arrays: dict[str, Any]) -> list[Any]:
    """The state of each object that has one, with its class' name."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, np.generic) or (hasattr(value, "__array__") and np.asarray(value).ndim == 0):
            return np.asarray(value).item()
        if hasattr(value, "__array__"):
            name = f"object-{len(arrays)}"
            arrays[name] = np.array(value)
            return {_ARRAY: name}
        return value

    return [[type(thing).__name__, plain(_get(thing))] for thing in objects]


def restore(objects: Sequence[Any], found: Sequence[Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Give the objects the state that `capture` has found in their like.

    Raises UsageError when they are not of the same classes in the same order.
    """

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            return arrays[value[_ARRAY]] if _ARRAY in value else {key: whole(item) for key, item in value.items()}
        return [whole(item) for item in value] if isinstance(value, list) else value

    before, now = [name for name, _ in found], [type(thing).__name__ for thing in objects]
    if before != now:
        raise UsageError(
            f"the state is of these callbacks: {', '.join(before) or 'none'}; now there are "
            f"{', '.join(now) or 'none'}. Pass the same ones, or start a new run."
        )
    for thing, (_, values) in zip(objects, found, strict=True):
        _set(thing, whole(values))


def _get(thing: Any) -> Mapping[str, Any]:
    if hasattr(thing, "get_state"):
        return thing.get_state()
    return {name: getattr(thing, name) for name in _names(thing) if hasattr(thing, name)}


def _set(thing: Any, values: Mapping[str, Any]) -> None:
    if hasattr(thing, "set_state"):
        thing.set_state(values)
        return
    for name, value in values.items():
        setattr(thing, name, value)


def _names(thing: Any) -> tuple[str, ...]:
    return next(names for known, names in CHANGED_BY_TRAINING.items() if isinstance(thing, known))
