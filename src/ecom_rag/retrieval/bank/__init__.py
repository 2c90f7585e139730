"""The persistent seed bank."""
