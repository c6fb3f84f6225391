"""Finished policies as files that act without the package: ONNX, StableHLO, or plain arrays."""
