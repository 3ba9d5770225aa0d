import keras
import numpy as np

from workbench.train.track import weights_sha256


def model(name: str = "a", width: int = 3) -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(width, name=name), keras.layers.Dropout(0.5)])


def test_the_hash_depends_on_every_bit_of_the_weights_and_on_no_name() -> None:
    one = model()
    assert weights_sha256(one) == weights_sha256(model(name="b"))
    assert weights_sha256(one) != weights_sha256(model(width=4))
    kernel, bias = one.get_weights()
    kernel[0, 0] = np.nextafter(kernel[0, 0], np.float32(10))
    changed = model()
    changed.set_weights([kernel, bias])
    assert weights_sha256(one) != weights_sha256(changed)
