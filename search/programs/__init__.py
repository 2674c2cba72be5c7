"""Networks as programs of a run-time, ``torch.export`` or ONNX, and what runs them on raw inputs."""
