"""1-D k-means against scikit-learn's.

scikit-learn takes minutes for a whole layer. Its time on two parts of the layer gives the time that
each further value costs, which the whole layer takes at the least.
"""

import functools
import statistics
import warnings

import torch
from measuring import CLOCKS, Cases, Ratio, Row, Settings, interleave
from torch import Tensor

from mmqnet.ops import kmeans_1d

VALUES = 512 * 1024 * 9  # fc6 of SSD300
CLUSTERS = 255
PARTS = (32, 16)
REPEATS = 3


def cases(settings: Settings) -> Cases:
    """Return the only case."""
    size = 32_000 if settings.quick else VALUES
    return {f'{size:,} values': functools.partial(measure, size, settings)}


def measure(size: int, settings: Settings) -> Row:
    """Time both, and compare the sums of squared errors on the larger part."""
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        return Row({}, {}, {'scikit-learn': str(error)})
    values = torch.randn(size, generator=torch.Generator().manual_seed(0))
    ours = interleave({'ours': lambda: kmeans_1d(values, CLUSTERS)}, REPEATS, settings)['ours']
    times, inertias = [], []
    for part in PARTS:
        sample = values[::part].contiguous()
        start = CLOCKS[settings.clock]()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            theirs = KMeans(CLUSTERS, n_init=1, random_state=0).fit(sample[:, None].numpy())
        times.append(CLOCKS[settings.clock]() - start)
        inertias.append(inertia(sample, kmeans_1d(sample, CLUSTERS)) / theirs.inertia_)
    small, large = (size // part for part in PARTS)
    bound = (times[1] - times[0]) / (large - small) * size
    ratios = {
        'scikit-learn / ours': Ratio(bound / statistics.median(ours), at_least=50),
        'inertia, ours / scikit-learn': Ratio(inertias[1], at_most=1.001),
    }
    seconds = dict(
        ours=ours, **{f'scikit-learn, 1/{p}': t for p, t in zip(PARTS, times, strict=True)}
    )
    return Row(ratios, dict(seconds=seconds, bound=bound))


def inertia(values: Tensor, centres: Tensor) -> float:
    """Return the sum of squared distances to the nearest centre."""
    values, centres = values.double(), centres.double()
    nearest = torch.bucketize(values, (centres[1:] + centres[:-1]) / 2)
    return (values - centres[nearest]).square().sum().item()
