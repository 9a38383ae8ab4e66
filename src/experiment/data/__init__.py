"""The data sets: each function is a `_target_` in configs/data and gives a `Data`. Nothing here may import torch."""

from experiment.data.cifar10 import cifar10
from experiment.data.data import Data, check, make, split
from experiment.data.digits import digits
from experiment.data.folder import folder
from experiment.data.idx import idx

__all__ = ["Data", "check", "cifar10", "digits", "folder", "idx", "make", "split"]
