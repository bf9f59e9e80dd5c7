"""What a module's forward code does with weights and activations, read from its syntax tree.

Both show where quantized layers would be bypassed, or where float products remain beside them.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator

_PRODUCTS = {
    'baddbmm',
    'bmm',
    'einsum',
    'matmul',
    'multi_scale_deformable_attn_pytorch',
    'scaled_dot_product_attention',
}
_WEIGHTS = {'weight', 'in_proj_weight'}
_NO_VALUES = {'device', 'dtype', 'new_empty', 'new_zeros', 'requires_grad', 'shape', 'size'}


@functools.cache
def weights_read_by(kind: type) -> frozenset[str]:
    """Return the submodules whose weights the forward of a class reads without calling them.

    Args:
        kind: Class of the module.

    Returns:
        frozenset[str]: Their names within the module, for example ``{'qkv'}``.
    """
    nodes = list(_forward_nodes(kind))
    asked = {
        node.value
        for node in nodes
        if isinstance(node, ast.Attribute) and node.attr in _NO_VALUES  # `.weight.dtype`
    }
    weights = (
        node.value
        for node in nodes
        if isinstance(node, ast.Attribute) and node.attr in _WEIGHTS and node not in asked
    )
    return frozenset(filter(None, map(_path_from_self, weights)))


@functools.cache
def products_in(kind: type) -> frozenset[str]:
    """Return the operations that multiply activations in the forward of a class (attention).

    Args:
        kind: Class of the module.

    Returns:
        frozenset[str]: Their names, for example ``{'matmul'}``; ``'@'`` is the operator. With
        ``'softmax'``, if there is one beside them.
    """
    found = set()
    for node in _forward_nodes(kind):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            found.add('@')
        elif isinstance(node, ast.Call):
            found.add(getattr(node.func, 'attr', getattr(node.func, 'id', '')))
    products = found & {'@', *_PRODUCTS}
    return frozenset(products | (found & {'softmax'})) if products else frozenset()


def _forward_nodes(kind: type) -> Iterator[ast.AST]:
    """Yield all nodes of ``forward`` and of the methods that it calls on itself."""
    waiting, done = ['forward'], set()
    while waiting:
        method = waiting.pop()
        done.add(method)
        for node in ast.walk(_tree(getattr(kind, method))):
            yield node
            called = _path_from_self(node.func) if isinstance(node, ast.Call) else None
            if called and called not in done and inspect.isfunction(getattr(kind, called, None)):
                waiting.append(called)


def _tree(function: object) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))  # type: ignore[arg-type]
    except (OSError, TypeError, SyntaxError):
        return ast.Module([], [])  # written in C, made at run time, or shipped without its source


def _path_from_self(node: ast.AST) -> str | None:
    """Return ``'a.b'`` for the expression ``self.a.b``, None for another one."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return '.'.join(names) if isinstance(node, ast.Name) and node.id == 'self' else None
