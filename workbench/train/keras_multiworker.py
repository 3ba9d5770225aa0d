"""Lets `model.fit` of Keras 3 train under MultiWorkerMirroredStrategy, which by itself it cannot (keras#20585).

    mend()      # before fit, in every worker

Two private functions of Keras are replaced, for several workers only. Keras takes a batch of the data to learn its
shape and reduces it, which fails, and the batch is lost: we take zeros of the dataset's own shape. And it reduces the
scalar logs of each step over an axis they do not have: we give each worker its own, which needs no word between them;
an epoch's logs come from the metrics themselves, of all workers.
"""

import hashlib
import inspect
from typing import Any

import keras
import tensorflow as tf
from keras.src import tree
from keras.src.backend.tensorflow import trainer
from keras.src.trainers.trainer import Trainer

from workbench.errors import UsageError

# What we replace or call, with its signature and the first digits of its source's sha256 in Keras 3.15.1.
_HOOKS = {
    "reduce_per_replica": (trainer, "(values, strategy, reduction)", "2e7d54b1e6ed"),
    "_multi_worker_concat": (trainer, "(v, strategy)", "2137073bfe27"),
    "_collective_all_reduce_multi_worker": (trainer, "(strategy)", "0302369d850e"),
    "_maybe_symbolic_build": (trainer.TensorFlowTrainer, "(self, iterator=None, data_batch=None)", "92a504f5eba9"),
    "_symbolic_build": (Trainer, "(self, iterator=None, data_batch=None)", "96220cc3b88f"),
}
_originals: dict[str, Any] = {name: getattr(owner, name, None) for name, (owner, *_) in _HOOKS.items()}


def moved(sources: bool = False) -> list[str]:
    """Which of the functions of Keras that `mend` relies on have changed, in words; with `sources`, to the letter."""
    found = []
    for name, (owner, signature, digest) in _HOOKS.items():
        where, function = f"{owner.__name__}.{name}", _originals[name]
        if function is None:
            found.append(f"{where} is gone")
        elif (now := str(inspect.signature(function))) != signature:
            found.append(f"{where}{signature} has become {now}")
        elif sources and (now := hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]) != digest:
            found.append(f"{where} has another body: {now}, not {digest}")
    return found


def mend() -> None:
    """Replace them. Raises UsageError, with the name, when this Keras has no such function any more."""
    if changed := moved():
        raise UsageError(
            f"Keras {keras.__version__} cannot be mended for several workers: {'; '.join(changed)}. "
            "Install keras==3.15.*, or train on one worker."
        )
    trainer.reduce_per_replica = _reduce_per_replica
    trainer.TensorFlowTrainer._maybe_symbolic_build = _maybe_symbolic_build


def build(model: keras.Model, dataset: tf.data.Dataset) -> None:
    """Let the model, its optimizer and its metrics have all their variables, without a step or a batch."""
    with model.distribute_strategy.scope():
        model._symbolic_build(data_batch=tf.nest.map_structure(_zeros, dataset.element_spec))


def _reduce_per_replica(values: Any, strategy: tf.distribute.Strategy, reduction: str) -> Any:
    if not trainer._collective_all_reduce_multi_worker(strategy) or reduction not in ("auto", "concat"):
        return _originals["reduce_per_replica"](values, strategy, reduction)
    if reduction == "concat":
        return tree.map_structure(lambda value: trainer._multi_worker_concat(value, strategy), values)
    return tree.map_structure(lambda value: strategy.experimental_local_results(value)[0], values)


def _maybe_symbolic_build(self: keras.Model, iterator: Any = None, data_batch: Any = None) -> None:
    if iterator is None or not trainer._collective_all_reduce_multi_worker(self.distribute_strategy):
        return _originals["_maybe_symbolic_build"](self, iterator, data_batch)
    specs = iterator._distributed_dataset.element_spec
    with self.distribute_strategy.scope():
        self._symbolic_build(data_batch=tf.nest.map_structure(_zeros, specs))


def _zeros(spec: Any) -> tf.Tensor:
    """One example of zeros, or empty texts, of the shape that `spec` gives each."""
    spec = spec._value_specs[0] if hasattr(spec, "_value_specs") else spec  # that of the first replica
    return tf.zeros([1 if size is None else size for size in spec.shape], spec.dtype)
