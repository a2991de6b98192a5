"""Writing an ONNX file: the export, and a fixed batch."""
