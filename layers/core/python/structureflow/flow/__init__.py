"""Optical flow: engines, fields, the seekable archive, and extraction from a video."""
