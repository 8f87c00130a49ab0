"""What an epoch takes on many GPUs, computed: arithmetic on stated assumptions, nothing of it is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import log2


@dataclass(frozen=True)
class Cluster:
    """GPUs that each hold the whole model.

    Attributes:
        gpus: how many.
        flops: of one GPU and second, at its peak, dense, in the precision of the matrix products.
        utilization: share of the peak that a step reaches.
        launch: seconds that a step takes at least, since one core launches its kernels.
        bytes_per_second: that a GPU sends, and receives at once.
        latency: seconds of one hop between two GPUs.
    """

    gpus: int = 256
    flops: float = 990e12
    utilization: float = 0.35
    launch: float = 1e-3
    bytes_per_second: float = 50e9
    latency: float = 5e-6


@dataclass(frozen=True)
class Job:
    """A model and its data.

    Attributes:
        images: of the training set.
        bytes_per_image: as they are stored.
        parameters: numbers that are trained.
        multiplications: multiply-adds of one forward pass of one image; of dense layers as many as parameters.
        batch: images of one GPU and step.
    """

    images: float
    bytes_per_image: float
    parameters: float
    multiplications: float
    batch: int = 128


MLP = Job(1e8, 784, 652_824, 651_200, batch=1024)
CONVOLUTIONS = Job(1e8, 64 * 64 * 3, 50e6, 5e9)


def epoch(job: Job, cluster: Cluster) -> dict[str, float]:
    r"""Seconds of a step, $\max(6 M B / (u F),\ s) + 2 \frac{n-1}{n} 4 P / b + 2 l \log_2 n$, and of an epoch.

    A multiply-add is 2 operations, and the backward pass costs twice the forward pass; the gradient is one message of
    4 bytes a parameter, which is sent twice around, up and down a tree, when the backward pass is done. Nothing is
    overlapped, and data are there when they are needed.
    """
    n = cluster.gpus
    products = 6 * job.multiplications * job.batch / (cluster.utilization * cluster.flops)
    compute = max(products, cluster.launch)
    share_sent = 2 * (n - 1) / n if n > 1 else 0.0
    sending = share_sent * 4 * job.parameters / cluster.bytes_per_second
    waiting = 2 * log2(n) * cluster.latency
    step = compute + sending + waiting
    steps = job.images / (job.batch * n)
    return {
        "steps": steps,
        "compute_seconds_per_step": compute,
        "all_reduce_bytes_per_gpu": share_sent * 4 * job.parameters,
        "all_reduce_seconds_per_step": sending + waiting,
        "seconds_per_epoch": steps * step,
        "efficiency": compute / step,
        "bytes_read_per_second": job.batch * n * job.bytes_per_image / step,
        "bytes_of_state_per_gpu": 4 * 4 * job.parameters,
        "terabytes_of_data": job.images * job.bytes_per_image / 1e12,
    }


def computed() -> dict[str, dict[str, object]]:
    """Both jobs on 256 GPUs and on one."""
    found: dict[str, dict[str, object]] = {}
    for name, job in (("MLP 784-400-20", MLP), ("convolutional, 50 M parameters", CONVOLUTIONS)):
        for cluster in (Cluster(), Cluster(gpus=1)):
            title = f"{name}, {cluster.gpus} GPU{'s' if cluster.gpus > 1 else ''}"
            found[title] = {"job": asdict(job), "cluster": asdict(cluster), **epoch(job, cluster)}
    return found
