"""Models for the contract's odd corners: made in TensorFlow 1's way, which names methods as estimators did."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = np.random.default_rng(0).random((3, 8, 8, 1), "float32")
TYPES = (
    *("int8", "uint8", "int16", "uint16", "int32", "int64", "uint32", "uint64"),
    *("bool", "float16", "bfloat16", "float32", "float64"),
)


@dataclass(frozen=True)
class Digits:
    """What this version answers to IMAGES."""

    version: int


def digits(models: Path, version: int) -> Any:
    """The same from TensorFlow."""
    import tensorflow as tf

    model = tf.saved_model.load(str(models / "digits" / str(version)))
    return model.signatures["serving_default"](image=tf.constant(IMAGES))["output_0"].numpy()


def save(folder: Path) -> None:
    """Write two models.

    kinds/1: the signatures
        serving_default  a scalar -> its half
        types            an input of each of TYPES, as many rows as one likes -> the same
        complex          complex64 -> the same
        positive         x -> x, an error of the model unless it is positive
        uneven           x -> first, its first value alone, and all
        sparse           tf.Examples with any number of x -> the sum of them (regress)
        scored, named    tf.Examples with x -> x and -x as scores alone, "only" as a class alone (classify)
        precise          scored in float64 (classify)
        pairs, extra     regress, but with two values for each example, or with another output
    slow/1: seconds -> the same, after so long
    """
    import tensorflow as tf

    v1 = tf.compat.v1

    def signature(inputs: dict[str, Any], outputs: dict[str, Any], method: str = "predict") -> Any:
        sides = [{name: v1.saved_model.build_tensor_info(t) for name, t in side.items()} for side in (inputs, outputs)]
        return v1.saved_model.build_signature_def(*sides, f"tensorflow/serving/{method}")

    def write(name: str, session: Any, signatures: dict[str, Any]) -> None:
        builder = v1.saved_model.Builder(str(folder / name / "1"))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()

    with tf.Graph().as_default(), v1.Session() as session:
        number, x = v1.placeholder(tf.float32, []), v1.placeholder(tf.float32, [None])
        several = {name: v1.placeholder(name, [None], name) for name in TYPES}
        imaginary = v1.placeholder(tf.complex64, [None])
        examples = v1.placeholder(tf.string, [None])
        parsed = tf.io.parse_example(examples, {"x": tf.io.VarLenFeature(tf.float32)})["x"]
        total = tf.math.bincount(
            tf.cast(parsed.indices[:, 0], tf.int32), parsed.values, tf.size(examples), tf.size(examples)
        )
        scores = tf.stack([total, -total], 1)
        with tf.control_dependencies([tf.debugging.assert_positive(x)]):
            positive = tf.identity(x)
        given = {"inputs": examples}
        write(
            "kinds",
            session,
            {
                "serving_default": signature({"number": number}, {"half": number / 2}),
                "types": signature(several, {name: tf.identity(tensor) for name, tensor in several.items()}),
                "complex": signature({"z": imaginary}, {"z": tf.identity(imaginary)}),
                "positive": signature({"x": x}, {"y": positive}),
                "uneven": signature({"x": x}, {"first": x[:1], "all": tf.identity(x)}),
                "sparse": signature(given, {"outputs": total}, "regress"),
                "scored": signature(given, {"scores": scores}, "classify"),
                "named": signature(given, {"classes": tf.fill([tf.size(examples), 1], "only")}, "classify"),
                "precise": signature(given, {"scores": tf.cast(scores, tf.float64)}, "classify"),
                "pairs": signature(given, {"outputs": scores}, "regress"),
                "extra": signature(given, {"outputs": total, "also": total}, "regress"),
            },
        )
    with tf.Graph().as_default(), v1.Session() as session:
        seconds = v1.placeholder(tf.float64, [None])
        end = tf.timestamp() + tf.reduce_max(seconds)
        (now,) = tf.while_loop(lambda now: now < end, lambda _: tf.timestamp(), [tf.timestamp()])
        with tf.control_dependencies([now]):
            slept = tf.identity(seconds)
        write("slow", session, {"serving_default": signature({"seconds": seconds}, {"seconds": slept})})
