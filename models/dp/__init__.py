"""DP-SGD: sampling, clipping, noise, and what reached each step."""
