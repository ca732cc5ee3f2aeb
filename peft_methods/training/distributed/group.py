"""The process group of a run's ranks, on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

# A rank that has waited this long for another one gives up. The longest work that one rank does
# alone is to write a large model to disk.
PATIENCE = timedelta(minutes=10)
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}  # values of the host go by gloo
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


@contextmanager
def joined_group(device: str) -> Iterator[None]:
    """Context manager: the ranks that the environment describes are one group.

    Each sees its own GPU alone, so that its number within the machine is 0.
    """
    os.environ["LOCAL_RANK"] = "0"
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(variable, LOOPBACK)
    dist.init_process_group(BACKENDS[device.partition(":")[0]], timeout=PATIENCE)
    dist.all_reduce(torch.zeros(1))  # all are connected: one that ends at once breaks no other
    yield
    dist.destroy_process_group()  # after an error it would wait for the others
