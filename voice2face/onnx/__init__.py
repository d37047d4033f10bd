"""Networks as ONNX: exported for programs without PyTorch, and run in the place of PyTorch's."""
