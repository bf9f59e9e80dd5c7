"""The documentation site, built from the checkout's Markdown and docstrings by `make docs`."""

import os
import sys
from pathlib import Path

from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import mmqnet  # noqa: E402 -- of this checkout

project = 'mmqnet'
author = copyright = 'mmqnet developers'
version = release = mmqnet.__version__
html_title = f'mmqnet {release}'

extensions = [
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinxcontrib.mermaid',
]
# The sources are the pages of the checkout as they are, so that links between them work both here
# and where the repository is browsed.
root_doc = 'docs/index'
include_patterns = [
    'docs/**',
    'configs/*/README.md',
    'CONTRIBUTING.md',
    'CHANGELOG.md',
]
exclude_patterns = ['docs/conf.py', '.*', 'build', 'data', 'mmqnet', 'tests', 'tools', 'work_dirs']

myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 3
myst_fence_as_directive = ['mermaid']
nb_execution_mode = 'off'  # notebooks are shown with the outputs they were committed with

autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented_params'
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
# Docstrings name classes as readers know them; what lies in other modules is not linked.
nitpicky = False
suppress_warnings = ['mystnb.unknown_mime_type']

html_theme = 'furo'
html_static_path = ['_static']
html_css_files = ['site.css']
html_extra_path = ['_extra']
html_copy_source = False
html_show_sourcelink = False
os.environ.setdefault('OMP_NUM_THREADS', '1')


def link_by_last_name(app, env, node, contnode):
    """Link ``:class:`PhaseHook``` from any module: docstrings name things as readers know them."""
    if node.get('refdomain') != 'py':
        return None
    objects = env.domains['py'].objects
    target = node['reftarget'].lstrip('~')
    found = [name for name in objects if name.endswith(f'.{target}')]
    if not found:
        return None
    place = objects[min(found, key=len)]
    builder, document = app.builder, node.get('refdoc')
    return make_refnode(builder, document, place.docname, place.node_id, contnode)


def setup(app):
    """Register what this file adds to Sphinx."""
    app.connect('missing-reference', link_by_last_name)
