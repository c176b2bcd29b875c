"""The attributes that a conversion sets on a model.

Pickles of whole models hold these names, so they stay (CONTRIBUTING, "Names that pickles hold"). A conversion also
registers hooks (`aliasfix.edits.hooks`, `aliasfix.edits.watch`), sets strides, and puts rewritten methods before those
of the class, under the same names (`aliasfix.edits.methods`).
"""

PLAN = "_aliasfix_plan"
"""Of the converted model: the executed `Plan`."""
BASE = "_aliasfix_base"
"""Of a loaded model: the name of its base and the arguments that it was built with."""
IMAGES = "_aliasfix_images"
"""Of a model: how images are prepared for it, as a dict, and where that is said."""
BLUR = "aliasfix_blur"
"""Of an edited module: the inserted layer, a child. Further ones are ``aliasfix_blur_2`` and so on."""
