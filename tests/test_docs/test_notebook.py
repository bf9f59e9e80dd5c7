"""The tutorial notebook: it runs, and it is committed with the outputs of a run."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytest.importorskip('onnxruntime')
NOTEBOOK = Path(__file__).parents[2] / 'docs' / 'tutorials' / 'quantize_your_detector.ipynb'
SMALLEST = """
from quick_start import make_quick

make_quick()
NUM_TRAIN, NUM_VAL = 8, 4
FLOAT_EPOCHS, QUANTIZED_EPOCHS = 1, 1
FLOAT_CHECKPOINT = Path('nowhere.pth')
"""


def outputs(notebook: nbformat.NotebookNode) -> list[dict]:
    cells = [cell for cell in notebook.cells if cell.cell_type == 'code']
    return [output for cell in cells for output in cell.outputs]


def pictures(notebook: nbformat.NotebookNode) -> int:
    return sum('image/jpeg' in output.get('data', {}) for output in outputs(notebook))


@pytest.fixture(scope='module')
def committed() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.mark.slow
def test_it_runs_from_a_data_set_to_onnx(committed, root, tmp_path):
    notebook = nbformat.from_dict(committed)
    (settings,) = [c for c in notebook.cells if 'parameters' in c.metadata.get('tags', ())]
    settings.source = SMALLEST
    client = NotebookClient(notebook, timeout=600, resources={'metadata': {'path': str(tmp_path)}})
    path = f'{root}{os.pathsep}{root / "tests" / "helpers"}'
    client.execute(env={**os.environ, 'PYTHONPATH': path, 'IPYTHONDIR': str(tmp_path)})
    assert pictures(notebook) == pictures(committed)
    text = ''.join(output.get('text', '') for output in outputs(notebook))
    assert 'layers quantized; weights' in text  # the table is text in a notebook too
    assert (tmp_path / 'work_dirs' / 'notebook' / 'quantized.onnx').is_file()


def test_it_is_committed_with_outputs(committed):
    assert not [output for output in outputs(committed) if output.output_type == 'error']
    assert pictures(committed) == 6
    text = ''.join(output.get('text', '') for output in outputs(committed))
    assert 'ONNX Runtime   mAP 0.6' in text
    assert str(Path.home()) not in text
    assert NOTEBOOK.stat().st_size < 2**21
