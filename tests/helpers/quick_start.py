"""What makes trainings and exports of seconds short, without a change of what they do."""

import atexit
import copy
import functools
import gc
import sys


def make_quick() -> None:
    """Leave out what MMEngine and torch.onnx repeat in each run; to be called when all is imported.

    - It searches a config's base among the metafiles of all models: read once.
    - It writes the text of the config into the log, the work dir and each checkpoint, five times a
      run, laid out anew by yapf. Python reads it the same without.
    - Each data set collects garbage, among a million objects of modules, which stay for good.
    - Each export reads the source of 500 translations of operators anew, and looks through all
      operators of torch for each namespace; and it tries 50 rules at each node, whatever it is.
    """
    if 'mmengine' in sys.modules:
        from mmengine.config import utils
        from yapf.yapflib import yapf_api

        utils.load = functools.cache(utils.load)
        yapf_api.FormatCode = lambda text, **_: (text, True)
    if 'mmqnet.export.onnx' in sys.modules:
        _make_exports_quick()
    gc.freeze()
    atexit.register(gc.unfreeze)  # or libraries say at the end that their objects leak


def _make_exports_quick() -> None:
    from onnxscript.rewriter import RewriteRule
    from torch._export import utils
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read = functools.cache(ONNXRegistry.from_torchlib)
    rewrite = RewriteRule.try_rewrite

    def from_torchlib(opset_version):
        registry = copy.copy(read(opset_version))
        registry.functions = {name: [*found] for name, found in registry.functions.items()}
        return registry

    def try_rewrite(rule, model, graph, node, **options):
        fits = rule._target_pattern.output_nodes[0].op.matches(node.op_type)
        return rewrite(rule, model, graph, node, **options) if fits else None

    ONNXRegistry.from_torchlib = staticmethod(from_torchlib)
    RewriteRule.try_rewrite = try_rewrite
    utils._materialize_cpp_cia_ops = functools.cache(utils._materialize_cpp_cia_ops)
