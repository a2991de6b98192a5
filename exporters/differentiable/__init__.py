"""An ONNX file as a torch module with gradients: attacks differentiate it, and onnxruntime decides."""
