"""Names of the runtimes that execute exported files; imports nothing, for command lines."""

BACKENDS = ('onnxruntime', 'openvino', 'litert', 'executorch')
