"""CIFAR-100: 50,000 training and 10,000 test pictures of 32 x 32 pixels in 100 classes."""

from __future__ import annotations

from functools import partial

from torchvision.datasets import CIFAR100

from compressor.core.contracts import OpenDataset
from compressor.data.sources._cifar import open_cifar

DATASET: OpenDataset = partial(open_cifar, CIFAR100, "cifar100")
