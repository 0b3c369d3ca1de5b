"""The frozen trunk: texts encoded once, activations cached and packed."""
