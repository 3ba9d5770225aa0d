"""Which devices train: one, or several that hold replicas of the model.

    strategy = wb.strategy()          # before any TensorFlow operation
    with strategy.scope():
        model = ...                   # build and compile in the scope

The batch size is the global one; each replica takes its share of it.
"""

import tensorflow as tf

from workbench import context
from workbench.errors import UsageError


def strategy(cpu_replicas: int = 1) -> tf.distribute.Strategy:
    """The strategy that fits this machine: MirroredStrategy over several GPUs, else TensorFlow's default, one device.

    cpu_replicas: with 2 or more, MirroredStrategy over that many logical CPU devices, to try replicated training on
      a machine without GPUs. It proves that a model trains on replicas; it is not faster.

    Raises UsageError for a TF_CONFIG that is half set, names parameter servers or more than one worker, and for
    cpu_replicas once TensorFlow has run an operation.
    """
    cluster = context.cluster()
    if cluster and len(cluster.workers) > 1:
        raise UsageError(
            f"TF_CONFIG names {len(cluster.workers)} workers; this version trains on one. Unset TF_CONFIG to go on."
        )
    if not isinstance(cpu_replicas, int) or cpu_replicas < 1:
        raise UsageError(f"strategy: cpu_replicas is {cpu_replicas!r}; expected a whole number, at least 1")
    if cpu_replicas > 1:
        return tf.distribute.MirroredStrategy(_logical_cpus(cpu_replicas))
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _logical_cpus(count: int) -> list[str]:
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu) or []
    if len(configured) < count:
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        except RuntimeError as error:
            raise UsageError(
                f"strategy(cpu_replicas={count}): TensorFlow has already run an operation. "
                "Restart the kernel and call strategy() before anything that computes."
            ) from error
    return [f"CPU:{index}" for index in range(count)]
