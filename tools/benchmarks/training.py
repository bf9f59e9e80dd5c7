"""Whole training steps and evaluations of real models, quantized against float."""

import functools

from measuring import Cases, Ratio, Row, Settings, interleave, median_ratio
from networks import FLOAT, NETWORKS, QUICK, Run, build_run, shrink

# What is measured of each network: recipes, each with its target.
RECIPES: dict[str, dict[str, dict[str, float | None]]] = {
    'train': {
        'SSD300-VGG16': {'w3-a32': 1.05, 'w3-a8': 1.15},
        'ResNet-18': {'w3-a32': 1.08, 'w2-a2': 1.20},
        'RetinaNet-R18': {'w3-a8': None},
    },
    'evaluate': {
        'SSD300-VGG16': {'w3-a32': 1.02, 'w3-a8': 1.10},
        'ResNet-18': {'w3-a32': None, 'w2-a2': None},
    },
}
STEPS = {'SSD300-VGG16': 3, 'ResNet-18': 5, 'RetinaNet-R18': 5}
EVALUATIONS = 9


def cases(settings: Settings, what: str) -> Cases:
    """Return a case for each network.

    Args:
        settings: What all measurements share.
        what: ``'train'`` or ``'evaluate'``.
    """
    recipes = QUICK if settings.quick else RECIPES[what]
    return {
        name: functools.partial(measure, name, targets, what, settings)
        for name, targets in recipes.items()
    }


def measure(name: str, targets: dict[str, float | None], what: str, settings: Settings) -> Row:
    """Run the float model and the quantized ones in turns."""
    network = shrink(NETWORKS[name]) if settings.quick else NETWORKS[name]
    runs = {recipe: build_run(network, recipe, what) for recipe in (FLOAT, *targets)}
    repeats = 1 if settings.quick else STEPS[name] if what == 'train' else EVALUATIONS
    subjects = {recipe: functools.partial(getattr(Run, what), run) for recipe, run in runs.items()}
    seconds = interleave(subjects, repeats, settings)
    ratios = {
        f'{recipe} / float': Ratio(median_ratio(seconds, recipe, FLOAT), at_most=target)
        for recipe, target in targets.items()
    }
    return Row(ratios, dict(seconds=seconds))
