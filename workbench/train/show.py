"""What a run has learned, in pictures.

    wb.show(run, model, (x_test, y_test), labels=names)   # where the model errs
    wb.show(run)                                          # the curves, and what the first line has shown

They stay in the run as pictures/*.png.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from workbench import files
from workbench.errors import UsageError
from workbench.run import pictures
from workbench.run.curves import best_epoch, read_curves
from workbench.run.runs import Run
from workbench.train.data import columns_of

_BATCH = 256
_MOST_WRONG = 12  # how many of the worst errors are shown
_OF_ERRORS = ("confusion", "most_wrong", "predictions")
_NUMBERED = 20  # up to how many classes a confusion matrix has room for its numbers


def show(
    run: Run, model: keras.Model | None = None, data: tuple[Any, Any] | None = None, labels: Sequence[str] | None = None
) -> None:
    """Show the run's curves, or with a model and data where the model errs, which `show(run)` shows again.

    data: (x, y), the arrays, columns or data frame that the model predicts from, and the truth. When the model has one
      output for each class, y being class numbers or one-hot, or one probability, y being 0 or 1: the confusion matrix
      and the examples where the model was surest of a wrong class, images as images. Else, for numbers: the prediction
      over the truth.
    labels: the classes' names, in the order of their numbers.

    Raises UsageError for data that is no (x, y) of equal lengths, or does not fit the labels.
    """
    if model is not None or data is not None:
        if model is None or not isinstance(data, tuple) or len(data) != 2:
            raise UsageError("show: expected a model and data together: show(run, model, (x_test, y_test))")
        _show_errors(run, model, *data, labels)
        return
    curves = read_curves(run)
    best = best_epoch(curves)
    title = f"{run.name}/{run.id}" + (f": best epoch {best[0]}, {best[1]} {best[2]:.4g}" if best else "")
    _keep(run, "curves", pictures.curves_png(curves, title), title)
    for name in _OF_ERRORS:
        path = run.path / "pictures" / f"{name}.png"
        if path.exists():
            pictures.show(path.read_bytes(), f"{run.name}/{run.id}: {name.replace('_', ' ')}")


def _show_errors(run: Run, model: keras.Model, x: Any, y: Any, labels: Sequence[str] | None) -> None:
    inputs = columns_of(x)
    truth = np.asarray(y)
    batches = tf.data.Dataset.from_tensor_slices(inputs).batch(_BATCH)
    predicted = np.asarray(model.predict(batches, verbose=0))
    if len(predicted) != len(truth):
        raise UsageError(f"show: got {len(predicted)} examples and {len(truth)} truths; expected as many")
    classes = _classes(truth, predicted)
    for name in _OF_ERRORS:  # of another model, perhaps
        (run.path / "pictures" / f"{name}.png").unlink(missing_ok=True)
    if classes is None:
        if predicted.size != truth.size:
            raise UsageError(
                f"show: predictions of shape {predicted.shape} for a truth of shape {truth.shape}; expected class "
                "numbers or one-hot rows for a classifier, or as many numbers as the model predicts"
            )
        text = f"prediction over truth, {len(truth)} examples"
        _keep(run, "predictions", _predictions_png(truth.ravel(), predicted.ravel(), text), text)
        return
    true, scores = classes
    chosen = scores.argmax(1)
    count = scores.shape[1]
    names = [str(label) for label in labels] if labels is not None else [str(number) for number in range(count)]
    if len(names) != count or true.max(initial=0) >= count:
        raise UsageError(
            f"show: {len(names)} labels, and class numbers up to {true.max(initial=0)}, for a model with {count} "
            "classes; expected a label for each class, and numbers below that"
        )
    matrix = np.zeros((count, count), int)
    np.add.at(matrix, (true, chosen), 1)
    right = int(np.trace(matrix))
    text = f"confusion matrix: {right} of {len(true)} right"
    _keep(run, "confusion", _confusion_png(matrix, names, text), text)

    rows = np.arange(len(true))
    excess = scores[rows, chosen] - scores[rows, true]
    worst = [i for i in np.argsort(-excess, kind="stable") if chosen[i] != true[i]][:_MOST_WRONG]
    if not worst:
        return
    captions = [f"{names[true[i]]}, not {names[chosen[i]]} ({scores[i, chosen[i]]:.0%})" for i in worst]
    text = f"most wrong, {len(worst)} of {len(true) - right}: the truth, not the prediction"
    if _are_images(inputs):
        _keep(run, "most_wrong", _images_png([inputs[i] for i in worst], captions, text), text)
    else:
        lines = [f"  {caption}  {_features(inputs, i)}" for i, caption in zip(worst, captions, strict=True)]
        pictures.show(None, "\n".join([text, *lines]))


def _classes(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(class numbers, probabilities of each class), or None when this is no classification."""
    scores = predicted.reshape(len(predicted), -1).astype(float)
    if scores.shape[1] == 1:
        if predicted.min(initial=0) < 0 or predicted.max(initial=0) > 1 or not np.isin(truth, (0, 1)).all():
            return None
        return truth.ravel().astype(int), np.hstack([1 - scores, scores])
    if predicted.ndim != 2:
        return None
    if (scores < 0).any() or not np.allclose(scores.sum(1), 1, atol=1e-3):  # logits
        scores = np.exp(scores - scores.max(1, keepdims=True))
        scores /= scores.sum(1, keepdims=True)
    if truth.shape == predicted.shape and np.isin(truth, (0, 1)).all():
        return truth.argmax(1), scores
    if truth.size == len(truth) and np.equal(np.mod(truth, 1), 0).all():
        return truth.ravel().astype(int), scores
    return None


def _are_images(inputs: Any) -> bool:
    shape: tuple[int, ...] = getattr(inputs, "shape", ())
    coloured = len(shape) == 4 and shape[3] in (1, 3, 4)
    return (coloured or len(shape) == 3) and min(shape[1:3]) >= 4


def _features(inputs: Any, index: int) -> str:
    """The first few features of an example, to recognise it by."""
    named = inputs.items() if isinstance(inputs, dict) else enumerate(inputs.T) if inputs.ndim == 2 else []
    return f"example {index}: " + ", ".join(f"{name} {column[index]}" for name, column in list(named)[:6])


def _keep(run: Run, name: str, png: bytes | None, text: str) -> None:
    """Show the picture, and write it into the run."""
    pictures.show(png, text)
    if png:
        path: Path = run.path / "pictures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        files.write_bytes(path, png)


def _confusion_png(matrix: np.ndarray, names: Sequence[str], title: str) -> bytes:
    """How many examples of each class, a row, were taken for which, a column."""
    side = min(3.0 + 0.3 * len(names), 9.0)
    made, (panel,) = pictures.figure(1, side + 0.6, side)
    made.suptitle(title, fontsize="medium", x=0.01, ha="left")
    panel.imshow(matrix / matrix.sum(1, keepdims=True).clip(1), cmap="Blues", vmin=0, vmax=1)
    ticks = range(0, len(names), -(-len(names) // 40))  # more names than forty would overlap
    shown = [names[i] for i in ticks]
    panel.set_xticks(ticks, shown, rotation=0 if max(map(len, shown)) <= 3 else 90)
    panel.set_yticks(ticks, shown)
    panel.set(xlabel="predicted", ylabel="true")
    for row, column in np.argwhere(matrix) if len(names) <= _NUMBERED else ():
        dark = matrix[row, column] > 0.5 * matrix[row].sum()
        style = {"ha": "center", "va": "center", "fontsize": "small", "color": "white" if dark else "black"}
        panel.text(column, row, str(matrix[row, column]), **style)
    return pictures.png(made)


def _images_png(images: Sequence[np.ndarray], captions: Sequence[str], title: str) -> bytes:
    """Images, (height, width) or (height, width, channels) in any range of values, with a caption above each."""
    made, axes = pictures.figure(len(images), 1.5, 1.8, columns=6)
    made.suptitle(title, fontsize="medium", x=0.01, ha="left")
    for panel, image, caption in zip(axes, images, captions, strict=True):
        low, high = float(image.min()), float(image.max())
        scaled = (image - low) / ((high - low) or 1.0)
        panel.imshow(scaled.squeeze(-1) if scaled.ndim == 3 and scaled.shape[-1] == 1 else scaled, cmap="gray")
        panel.set_title(textwrap.fill(caption, 22), fontsize="x-small")
        panel.axis("off")
    return pictures.png(made)


def _predictions_png(truth: np.ndarray, predicted: np.ndarray, title: str) -> bytes:
    """Predictions over the truth, with the line on which they are equal."""
    made, (panel,) = pictures.figure(1, 4.6, 4.2)
    made.suptitle(title, fontsize="medium", x=0.01, ha="left")
    panel.scatter(truth, predicted, s=9, alpha=0.5, color=pictures.COLORS[0])
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    panel.plot(ends, ends, color="#999999", linewidth=1, linestyle="--")
    panel.set(xlabel="true", ylabel="predicted")
    panel.grid(alpha=0.25)
    return pictures.png(made)
