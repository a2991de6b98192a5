"""ONNX: export, runtime, gradients of a file, the claim inside it, and the verifier."""
