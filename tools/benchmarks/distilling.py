"""Training steps with a teacher, against those without."""

import functools

from measuring import Cases, Ratio, Row, Settings, interleave, median_ratio
from networks import FLOAT, NETWORKS, Network, Run, build_run, shrink

from mmqnet.distillation import DistillationConfig, Distiller

RECIPE = 'w2-a2u'
STEPS = {'ResNet-18': 5, 'RetinaNet-R18': 5}
OWN_COST = 0.05  # of the distances and their gradients, as a share of a step


def cases(settings: Settings) -> Cases:
    """Return a case for each network."""
    names = list(STEPS)[:1] if settings.quick else STEPS
    return {name: functools.partial(measure, name, settings) for name in names}


def measure(name: str, settings: Settings) -> Row:
    """Run steps with and without a teacher, and what the teacher costs alone, in turns."""
    network = shrink(NETWORKS[name]) if settings.quick else NETWORKS[name]
    runs = {
        FLOAT: build_run(network, FLOAT, 'train'),
        RECIPE: build_run(network, RECIPE, 'train'),
        'taught': build_run(network, RECIPE, 'train'),
    }
    teacher = _teach(runs['taught'], network)
    subjects = {key: functools.partial(Run.train, run) for key, run in runs.items()}
    subjects['teacher'] = teacher.evaluate
    seconds = interleave(subjects, 1 if settings.quick else STEPS[name], settings)
    alone = median_ratio(seconds, 'teacher', FLOAT)
    ratios = {
        'teacher / float step': Ratio(alone),
        'taught / not': Ratio(
            median_ratio(seconds, 'taught', RECIPE),
            at_most=None if settings.quick else 1 + alone + OWN_COST,
        ),
    }
    return Row(ratios, dict(seconds=seconds))


def _teach(run: Run, network: Network) -> Run:
    """Let the float model teach the one of a run, and return the teacher on the same pictures."""
    teacher = build_run(network, FLOAT, 'train').model
    teacher.eval()
    Distiller(run.model, teacher.requires_grad_(False), DistillationConfig()).attach()
    return Run(teacher, run.batch, None)
