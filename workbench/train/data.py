"""Batches whose order is a pure function of the run's seed and the epoch.

    train = batches(run, (x_train, y_train), batch_size)                     # shuffled anew each epoch
    validation = batches(run, (x_validation, y_validation), batch_size, shuffle=False, name="validation")

What comes out is a plain tf.data.Dataset: `.map` it, give it to `wb.fit`, `model.fit` or a loop of your own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from workbench.errors import UsageError
from workbench.run.resume import refuse_change
from workbench.run.runs import Run, read_record, update_record
from workbench.train.digests import digest, flatten, rows_digest

# A ready Dataset is shuffled within a window of this many examples; arrays are shuffled in full.
SHUFFLE_WINDOW = 16_384

# The epoch that each shuffled dataset of a run delivers next, for the callback that keeps them in step with training.
_epochs: dict[Path, list[tf.Variable]] = {}


def batches(
    run: Run, data: Any, batch_size: int | None, shuffle: bool = True, name: str | None = None
) -> tf.data.Dataset:
    """`data` as batches of `batch_size` examples, prefetched; its digest goes to run.json.

    data: an array, a dict of columns, a data frame, or a tuple of these such as `(x, y)` or `(x, y, sample_weight)`,
      all with one row per example; or a tf.data.Dataset of single examples (already batched if `batch_size` is None).
    batch_size: the global batch, over all replicas.
    shuffle: for training. Each pass has its own order, drawn from the run's seed and the epoch, and drops the last
      batch if it is not full: its gradient would weigh more than the others'. Without it the order is the data's own
      and every example comes.
    name: the data's name in run.json; "train" when shuffled and "evaluation" when not.

    Raises UsageError for parts of different lengths, mixed columns, or fewer examples than one batch.
    """
    name = name or ("train" if shuffle else "evaluation")
    seed = read_record(run)["seed"] or 0
    if isinstance(data, tf.data.Dataset):
        _record(run, name, {"sha256": None, "spec": str(data.element_spec)})
        return _from_dataset(run, data, batch_size, seed if shuffle else None)

    columns = columns_of(data)
    count = _count(columns)
    if not isinstance(batch_size, int) or batch_size < 1 or (shuffle and batch_size > count):
        raise UsageError(
            f"batches: batch_size {batch_size!r} for {count} examples; expected a whole number from 1 to {count}"
        )
    _record(run, name, {"examples": count, "sha256": digest(columns), "rows": rows_digest(columns)})
    steps = count // batch_size if shuffle else -(-count // batch_size)
    tensors = tf.nest.map_structure(tf.constant, columns)

    if shuffle:

        def order(epoch: tf.Tensor) -> tf.data.Dataset:
            every = tf.random.experimental.stateless_shuffle(tf.range(count), seed=tf.stack([seed, epoch]))
            return tf.data.Dataset.from_tensor_slices(tf.reshape(every[: steps * batch_size], (steps, batch_size)))

        rows = _each_epoch(run, order)
    else:
        rows = tf.data.Dataset.range(count, output_type=tf.int32).batch(batch_size)

    # Gathering a batch's rows at once is several times faster than batching single rows.
    gathered = rows.map(lambda index: tf.nest.map_structure(lambda column: tf.gather(column, index), tensors))
    return _prefetched(gathered.apply(tf.data.experimental.assert_cardinality(steps)))


def set_epoch(run: Run, epoch: int) -> None:
    """Let the next pass over the run's shuffled datasets be that of `epoch`, counted from 0."""
    for variable in _epochs.get(run.path, []):
        variable.assign(epoch)


def _each_epoch(run: Run, order: Any) -> tf.data.Dataset:
    """order(epoch) for one pass, epoch being how many passes went before or what `set_epoch` said last."""
    epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
    _epochs.setdefault(run.path, []).append(epoch)
    return tf.data.Dataset.range(1).flat_map(lambda _: order(epoch.assign_add(1) - 1))


def _from_dataset(run: Run, data: tf.data.Dataset, batch_size: int | None, seed: int | None) -> tf.data.Dataset:
    if seed is not None and batch_size is not None:

        def order(epoch: tf.Tensor) -> tf.data.Dataset:
            # Of this one graph: if the program's is 0, TensorFlow takes the shuffle's own seed for a Python number.
            tf.random.set_seed(1)
            own = epoch + seed * 1_000_003  # far apart, so that no epoch of a seed is one of the next seed
            return data.shuffle(SHUFFLE_WINDOW, seed=own, reshuffle_each_iteration=False)

        count = int(data.cardinality())
        data = _each_epoch(run, order)
        if count >= 0:  # neither infinite nor unknown
            data = data.apply(tf.data.experimental.assert_cardinality(count))
    if batch_size is not None:
        data = data.batch(batch_size, drop_remainder=seed is not None)
    return _prefetched(data)


def _prefetched(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """`dataset` with a few batches ready. Autotuning's own thread takes more from small steps than it gives."""
    options = tf.data.Options()
    options.autotune.enabled = False
    # Each of several workers takes its share of every batch, whatever the data is read from.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.prefetch(4).with_options(options)


def columns_of(data: Any) -> Any:
    """`data` with every column as a NumPy array; frames become dicts. Raises UsageError for a column of objects."""
    if isinstance(data, tuple):
        return tuple(columns_of(part) for part in data)
    if isinstance(data, Mapping):
        return {str(name): columns_of(part) for name, part in data.items()}
    if hasattr(data, "columns"):  # a data frame, of pandas or of a library like it
        return {str(name): columns_of(data[name]) for name in data.columns}
    column = data.to_numpy() if hasattr(data, "to_numpy") else np.asarray(data)
    odd = [value for value in column.ravel() if not isinstance(value, str)][:1] if column.dtype.kind == "O" else []
    if odd or column.dtype.kind not in "biufcSUO":
        found = f"{odd[0]!r} ({type(odd[0]).__name__})" if odd else column.dtype
        raise UsageError(
            f"batches: the column {getattr(data, 'name', '')!r} holds {found}; "
            "expected numbers or strings only: fill the gaps or convert the column first"
        )
    return column


def _count(columns: Any) -> int:
    lengths = {path: len(column) if column.ndim else 0 for path, column in flatten(columns)}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        shown = ", ".join(f"{path or 'data'}: {length}" for path, length in lengths.items()) or "nothing"
        raise UsageError(f"batches: got parts with these numbers of examples: {shown}; expected the same, at least 1")
    return next(iter(lengths.values()))


def _record(run: Run, name: str, facts: dict[str, Any]) -> None:
    """Note the facts in run.json under `name`, numbered if other data has that name already.

    Raises UsageError when the run has been resumed and its data is not what it was.
    """
    record = read_record(run)
    known = record["data"]
    free = next(
        n for i in range(1, len(known) + 2) if known.get(n := name if i == 1 else f"{name}-{i}") in (None, facts)
    )
    update_record(run, data={free: facts})
    if record.get("resumed"):
        refuse_change(run, f"the data {free!r}", record["resumed"]["before"]["data"].get(free, facts), facts)
