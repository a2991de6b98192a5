"""An ONNX file as a thing: its runtime, structure, opset and input layout."""
