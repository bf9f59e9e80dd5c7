"""What a runtime needs to know of a graph: how it is converted, and how its file is run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.fx import GraphModule

Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]
METADATA = 'mmqnet'  # where a file keeps what it says about itself, as JSON


@dataclass(frozen=True)
class Converted:
    """A converted graph.

    Attributes:
        content: Of the file.
        operators: How many operators of each kind and type it holds.
    """

    content: bytes
    operators: dict[str, dict[str, int]]


class Target(ABC):
    """A format.

    Attributes:
        name: Of the runtime.
        codes: Whether constants are given as int8 codes; otherwise as floats that are quantized.
    """

    name: ClassVar[str]
    codes: ClassVar[bool]

    @abstractmethod
    def convert(
        self, module: GraphModule, example: Sequence[Tensor], metadata: Mapping[str, str]
    ) -> Converted:
        """Convert a graph.

        Args:
            module: Of :func:`mmqnet.export.qdq.quantized_network`.
            example: Its inputs.
            metadata: Text for the file.

        Raises:
            ValueError: If the converter refuses it.
        """

    @abstractmethod
    def load(self, content: bytes) -> Run:
        """Return what runs a converted graph: float inputs to float outputs."""


def count(kinds: Sequence[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Return how many pairs of an operator and a type there are, by both."""
    found: dict[str, dict[str, int]] = {}
    for name, kind in kinds:
        of_name = found.setdefault(name, {})
        of_name[kind] = of_name.get(kind, 0) + 1
    return found


def conversion_error(runtime: str, error: Exception) -> ValueError:
    """Return one line for what a converter said: its last line says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ValueError(f"{runtime}'s converter refuses the network: {lines[-1] if lines else error}")
