"""The release: weights, ONNX, preprocessing, report."""
