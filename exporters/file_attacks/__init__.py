"""Attacks on an ONNX file: target, gradients, white box, random images, alarms."""
