"""Arguments that the tools share; imported before anything heavy."""

import argparse
from collections.abc import Sequence
from typing import Any


class _Settings(argparse.Action):
    """Collect settings, refusing those that are not KEY=VALUE; :func:`load_config` reads them."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        for value in values or ():
            if not value.partition('=')[0] or '=' not in value:
                raise argparse.ArgumentError(self, f'should be KEY=VALUE, but got {value!r}')
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or ()), *(values or ())])


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_settings(parser)
        >>> parser.parse_args(['--cfg-options', 'optim_wrapper.optimizer.lr=0.1']).cfg_options
        ['optim_wrapper.optimizer.lr=0.1']
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Settings,
        metavar='KEY=VALUE',
        help='settings that override the config, key=value; lists as key="[a,b]" or key=a,b',
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that MMDetection's train and test tools have in common.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_arguments(parser)
        >>> parser.parse_args(['--launcher', 'slurm']).launcher
        'slurm'
    """
    parser.add_argument('--work-dir', help='folder of logs, checkpoints and results')
    add_settings(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started',
    )
    add_trust(parser)
    # torch.distributed.launch passes --local-rank
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the argument that allows checkpoints which hold more than weights.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_trust(parser)
        >>> parser.parse_args([]).trust_checkpoint
        False
    """
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load checkpoints that hold more than weights and the state of a training; such a '
        'file can run any code, so know where it is from',
    )


def positive_integer(text: str) -> int:
    """Convert an argument to a positive integer; for argparse's ``type``.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.

    Example:
        >>> positive_integer('8')
        8
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'should be a positive integer, but got {text!r}')
    return int(text)
