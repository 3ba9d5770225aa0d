"""TensorFlow's messages come without TensorFlow, and are TensorFlow's all the same."""

import subprocess
import sys

from workbench.operate.serve import protos

CODE = """
import sys
from workbench.operate.serve import protos

loaded = {name for name in sys.modules if name.partition(".")[0] in ("tensorflow", "keras", "numpy")}
assert all(name.startswith("tensorflow.") and ".python" not in name for name in loaded), loaded
"""


def test_the_messages_need_nothing_of_tensorflow() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)


def test_tensorflow_has_the_same_messages() -> None:
    import tensorflow as tf  # later than protos: another class of the same name could not be registered

    assert tf.train.Example is protos.example_pb2.Example
    assert type(tf.make_tensor_proto([1.0])) is protos.tensor_pb2.TensorProto
