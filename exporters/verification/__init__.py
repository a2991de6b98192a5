"""The verifier: whether what an ONNX file claims of itself can be refuted, by anyone who holds it."""
