"""Volumes of several series: index, grids, preprocessing, loaders."""
