"""Charts of training runs: loss, IOU and mAP over the iterations."""
