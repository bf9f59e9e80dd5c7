"""ExecuTorch with XNNPACK: files for phones, by PyTorch's own runtime."""

from mmqnet.export.executorch.program import ExecuTorchProgram
from mmqnet.export.executorch.target import ExecuTorch

__all__ = ['ExecuTorch', 'ExecuTorchProgram']
