"""The command line: it parses, calls the API, and prints. One file a command.

Exit codes: 0 done, 1 failed, 2 usage, 3 nothing to convert.
"""

import os
import sys

import typer

from . import compare, convert, demo, export, finetune, inspect, names, revert, run, verify
from .help import Command, with_all

_HELP = """Anti-alias a trained network, keeping its weights.

A MODEL is timm:NAME, torchvision:NAME, a NAME that either knows (timm's if both do),
or package.module:factory.

\b
See what would be converted, and what not, and why:
  aliasfix inspect torchvision:resnet18
Convert your own checkpoint, then fine-tune it:
  aliasfix convert resnet18 --checkpoint mine.pth --arg num_classes=10 -o out.pth
See how a file was converted, and check it:
  aliasfix inspect out.pth
  aliasfix verify out.pth
Export it to where it runs:
  aliasfix export out.pth -o out.onnx
Train or validate with a script that knows nothing of aliasfix:
  aliasfix run validate.py --model local-dir:converted --pretrained --data-dir DIR
Fine-tune it on your images, with labels or without:
  aliasfix finetune out.pth --images DIR -o run
See what it does to the network, on your images:
  aliasfix compare resnet18 out.pth --checkpoint mine.pth --images DIR --html out.html
See all of that at work, offline:
  aliasfix demo

Exit codes: 0 done, 1 failed, 2 usage, 3 nothing to convert.
"""

app = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command(cls=Command)(with_all(inspect.inspect))
app.command(cls=Command)(with_all(convert.convert))
app.command()(revert.revert)
app.command()(verify.verify)
app.command(cls=Command)(with_all(export.export))
app.command(cls=Command)(with_all(finetune.finetune))
app.command("list")(names.list_names)
app.command(cls=Command)(with_all(compare.compare))
app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})(run.run)
app.command()(demo.demo)


def main() -> None:
    """The entry point of the ``aliasfix`` command."""
    # a factory of the user's lies where the command is called; last, so that nothing installed is hidden
    sys.path.append(os.getcwd())
    app()
