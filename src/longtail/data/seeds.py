"""Independent seeds for random streams."""

import numpy as np


def mix_seed(*numbers: int) -> int:
    """Hashes several numbers to one 63-bit seed.

    Examples:
        >>> mix_seed(0, 1) == mix_seed(1, 0)
        False
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
