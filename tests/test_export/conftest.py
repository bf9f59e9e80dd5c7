"""The exporter needs the packages of the extra `export`."""

import pytest

for name in ('onnx', 'onnxscript', 'onnxruntime'):
    pytest.importorskip(name)
