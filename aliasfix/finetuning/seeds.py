"""Randomness as a function of the seed and the position: nothing has to be kept to go on where a run ended."""

import contextlib
import random
from collections.abc import Iterator

import torch

DATA, MODEL, SHIFTS, SPLIT = range(4)


def seed_all(*key: int) -> None:
    """Seed Python, NumPy and torch by a tuple of whole numbers."""
    import numpy as np

    random.seed(derived(*key))
    np.random.seed(derived(*key))
    torch.manual_seed(derived(*key))


def derived(*key: int) -> int:
    """A 32-bit seed that differs, as good as surely, for every tuple of whole numbers.

    >>> derived(0, 1) == derived(0, 1) != derived(1, 0)
    True
    """
    import numpy as np

    return int(np.random.SeedSequence(key).generate_state(1)[0])


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Leave the global generators as they were."""
    import numpy as np

    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
