"""The operators of our exports in torch, one family a file; each follows the ONNX operator specification."""
