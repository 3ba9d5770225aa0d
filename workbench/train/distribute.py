"""Which devices train: one, several of this machine, or those of several workers.

    strategy = wb.strategy()          # before any TensorFlow operation
    with strategy.scope():
        model = ...                   # build and compile in the scope

The batch size is the global one; each replica takes its share of it. Where the workers come from is in cluster.py.
"""

import faulthandler
import signal
import sys
import threading

import tensorflow as tf

from workbench import context
from workbench.cluster import Cluster
from workbench.errors import UsageError
from workbench.train.rendezvous import meet


def strategy(cpu_replicas: int = 1) -> tf.distribute.Strategy:
    """The strategy that fits where this process runs.

    MultiWorkerMirroredStrategy over the workers that TF_CONFIG or Slurm name, TPUStrategy where there is a TPU,
    MirroredStrategy over several GPUs, else TensorFlow's default, one device.

    cpu_replicas: with 2 or more, MirroredStrategy over that many logical CPU devices, to try replicated training on
      a machine without GPUs. It proves that a model trains on replicas; it is not faster.

    Raises UsageError for a TF_CONFIG or SLURM_* that is half set or names parameter servers, and when TensorFlow has
    run an operation before the workers or replicas were set up; TimeoutError, with the addresses of those that miss,
    when the workers do not all come within WORKBENCH_PEER_SECONDS (120).
    """
    if not isinstance(cpu_replicas, int) or cpu_replicas < 1:
        raise UsageError(f"strategy: cpu_replicas is {cpu_replicas!r}; expected a whole number, at least 1")
    place = context.cluster()
    if place and len(place.workers) > 1:
        if cpu_replicas > 1:
            raise UsageError(
                f"strategy: cpu_replicas is {cpu_replicas}, but the workers have one replica each; leave it out"
            )
        return _workers(place)
    if cpu_replicas > 1:
        return tf.distribute.MirroredStrategy(_logical_cpus(cpu_replicas))
    if tf.config.list_physical_devices("TPU"):
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(tpu="local")
        return tf.distribute.TPUStrategy(resolver)
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _workers(place: Cluster) -> tf.distribute.Strategy:
    from workbench.train import keras_multiworker

    keras_multiworker.mend()
    tf.get_logger().setLevel("WARNING")  # it has a line for each exchange between workers
    seconds = context.peer_seconds()
    meet(place, seconds)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(place.workers)}), task_type="worker", task_id=place.index, rpc_layer="grpc"
    )
    # A worker that dies between the meeting and here would hold the others for a quarter of an hour, in a call that no
    # Python thread survives. This ends the process, with a traceback in its log.
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
    before = signal.getsignal(signal.SIGTERM)
    try:
        made = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise UsageError(
            "strategy: TensorFlow has already run an operation. Restart the kernel and call strategy() before anything "
            "that computes."
        ) from error
    finally:
        faulthandler.cancel_dump_traceback_later()
    # TensorFlow has put a handler of its own in C for SIGTERM, which only takes note of it.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)
    return made


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
