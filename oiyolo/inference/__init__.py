"""Networks in ONNX, and the detections that they make; needs neither darknet nor a GPU."""
