"""CREPE of torchcrepe: 1024 samples at 16 kHz in, (B, 1024), the salience of 360 pitches out."""

from .family import Family

FAMILIES = (Family("CREPE", ("torchcrepe.model.Crepe",), "pitch"),)
