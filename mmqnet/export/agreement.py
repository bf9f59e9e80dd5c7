"""How the codes of a quantizer agree, whatever computes the other ones."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mmqnet.export.freeze import FrozenQuantizer
from mmqnet.export.tables import render
from mmqnet.quantizers import Staircase

PREFIX = 'model.'  # of the names of modules in a wrapper
_TIE = 1e-5  # of the least distance of two thresholds: nearer, rounding decides


@dataclass
class CodeAgreement:
    """How the codes of one quantizer agree, on the same input of the layer before it.

    Attributes:
        name: Name of the quantizer; ``#1``, ``#2`` behind it for further runs of the same module.
        count: How many codes were compared.
        different: How many differ.
        off_by_one: How many differ by one level.
        ties: How many of those that differ stand at a threshold but for the rounding of floats.
    """

    name: str
    count: int = 0
    different: int = 0
    off_by_one: int = 0
    ties: int = 0

    @property
    def equal(self) -> float:
        """The share of equal codes."""
        return 1 - self.different / max(self.count, 1)

    @property
    def equal_but_ties(self) -> float:
        """The share of codes that are equal or at a threshold."""
        return 1 - (self.different - self.ties) / max(self.count, 1)

    def add(self, levels: Tensor, x: Tensor, function: Staircase) -> None:
        """Compare the codes of one tensor.

        Args:
            levels: Indices of levels, of the shape of ``x``, that a runtime has found.
            x: What the quantizer reads in the model.
            function: Its function.
        """
        distance = (levels - function.codes(x)).abs()
        differ = distance > 0
        scaled = function.beta * x[differ]
        thresholds = function.thresholds
        nearest = (scaled[:, None] - thresholds).abs().amin(1)
        gap = thresholds.diff().min() if len(thresholds) > 1 else thresholds.abs().max() + 1
        self.count += x.numel()
        self.different += int(differ.sum())
        self.off_by_one += int((distance == 1).sum())
        self.ties += int((nearest <= _TIE * gap).sum())


def inputs_of_quantizers(
    model: nn.Module, batch: Sequence[Tensor]
) -> dict[str, tuple[Tensor, Staircase]]:
    """Run a frozen model and return the input of each quantizer of activations, by its name."""
    seen: dict[str, tuple[Tensor, Staircase]] = {}
    runs: Counter[str] = Counter()

    def note(name: str) -> Callable[[FrozenQuantizer, tuple[Tensor]], None]:
        def hook(quantizer: FrozenQuantizer, args: tuple[Tensor]) -> None:
            key = f'{name}#{runs[name]}' if runs[name] else name
            runs[name] += 1
            seen[key] = (args[0].clone(), quantizer.function)

        return hook

    handles = [
        module.register_forward_pre_hook(note(name.removeprefix(PREFIX)))
        for name, module in model.named_modules()
        if isinstance(module, FrozenQuantizer) and module.weight is None
    ]
    model(*batch)
    for handle in handles:
        handle.remove()
    return seen


def codes_table(agreement: Sequence[CodeAgreement], title: str, decimals: int) -> str:
    """Return a table of the quantizers, and below it the least share of equal codes.

    Args:
        agreement: Of each quantizer; at least one.
        title: Above the table.
        decimals: Of the percentages.
    """
    share = f'.{decimals}%'
    rows = []
    for a in agreement:
        shares = (f'{part:{share}}' for part in (a.equal, a.off_by_one / a.count))
        rows.append((a.name, str(a.count), *shares, str(a.ties)))
    worst = min(agreement, key=lambda a: a.equal_but_ties)
    note = f'Least share of equal codes but for ties: {worst.equal_but_ties:{share}} ({worst.name})'
    return render(title, ('quantizer', 'codes', 'equal', 'off by one', 'ties'), rows, [note])
