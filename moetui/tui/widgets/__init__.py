"""Line-API widgets and the arithmetic of their axes; they know nothing of models."""
