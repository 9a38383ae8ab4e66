from dataclasses import dataclass


@dataclass
class Group:
    words: tuple
    values: list
    mean: float
    sd: float
    low: float
    high: float


def groups(everything):
    return []
