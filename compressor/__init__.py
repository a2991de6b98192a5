"""The engine: robust teachers, distillation, attacks. It knows torch, and nothing of ONNX or the terminal."""
