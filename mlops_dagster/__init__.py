"""Train, search and promote scikit-learn models; every tool only calls plain step functions."""

__version__ = "0.1.0"
