"""From a class name to a trained, evaluated, documented YOLO detector, out of Open Images."""
