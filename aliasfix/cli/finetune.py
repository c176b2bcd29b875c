"""``aliasfix finetune``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from ..conversion import convert, report
from ..files import opening
from ..finetuning import finetune as finetune_model
from ..images.preprocessing import Preprocessing
from ..recipe import Recipe
from . import console, options, targets

Model = Annotated[str, typer.Argument(metavar="MODEL|FILE", show_default=False)]
Out = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder of the run.")]
Original = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL|FILE", help="What to distil from; what is trained, reverted before training, by default."
    ),
]
Held = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|SHARE",
        help="Images held out: a folder, or a share of them, a tenth by default.",
        rich_help_panel=options.RARE,
    ),
]
Distillation = Annotated[
    float | None,
    typer.Option(
        help="Share of the loss that the original teaches; 1 needs no labels. ½, or 1 without labels.",
        rich_help_panel=options.RARE,
    ),
]
Temperature = Annotated[
    float,
    typer.Option(help="Of the distillation; 4 to 8 teach more of few images than 1.", rich_help_panel=options.RARE),
]
Consistency = Annotated[float, typer.Option(help="Weight of the loss between two random shifts.")]
Epochs = Annotated[int, typer.Option(help="Passes over the images.")]
BatchSize = Annotated[int, typer.Option(help="Images of a step, over all processes.", rich_help_panel=options.RARE)]
Lr = Annotated[float, typer.Option(help="The largest learning rate.")]
Optimizer = Annotated[str, typer.Option(metavar="NAME", help="One of timm's.", rich_help_panel=options.RARE)]
WeightDecay = Annotated[
    float, typer.Option(help="Of the weights, not of biases and norms.", rich_help_panel=options.RARE)
]
Schedule = Annotated[
    str,
    typer.Option(metavar="NAME", help="Of the learning rate, one of timm's, or none.", rich_help_panel=options.RARE),
]
Warmup = Annotated[float, typer.Option(help="Epochs in which the learning rate grows.", rich_help_panel=options.RARE)]
Ema = Annotated[
    float | None,
    typer.Option(metavar="DECAY", help="Keep a moving average of the weights, as 0.999.", rich_help_panel=options.RARE),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="no|bf16|fp16", help="What accelerate is configured to by default.", rich_help_panel=options.RARE
    ),
]
BatchStatistics = Annotated[
    bool,
    typer.Option(
        "--batch-statistics", help="Let BatchNorm use and update the batch's statistics.", rich_help_panel=options.RARE
    ),
]
Augment = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="An option of timm's augmentation, as hflip=0. Repeatable.",
        rich_help_panel=options.RARE,
    ),
]
Workers = Annotated[int, typer.Option(help="Processes that load images.", rich_help_panel=options.RARE)]
SaveEvery = Annotated[
    int | None,
    typer.Option(
        metavar="STEPS", help="Save where the run stands; once an epoch by default.", rich_help_panel=options.RARE
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run in DIR ended, or begin it.")]


@console.one_line_errors
@options.recipe_options()
@options.preprocessing_options
def finetune(
    target: Model,
    images: options.Images,
    output: Out,
    checkpoint_file: options.CheckpointFile = None,
    arg: options.Arg = None,
    *,
    recipe: Recipe,
    preprocessing: Preprocessing,
    original: Original = None,
    validation: Held = None,
    distillation: Distillation = None,
    temperature: Temperature = 1.0,
    consistency: Consistency = 0.0,
    epochs: Epochs = 10,
    batch_size: BatchSize = 32,
    lr: Lr = 1e-4,
    optimizer: Optimizer = "adamw",
    weight_decay: WeightDecay = 0.0,
    schedule: Schedule = "cosine",
    warmup_epochs: Warmup = 0.0,
    ema: Ema = None,
    mixed_precision: Precision = None,
    batch_statistics: BatchStatistics = False,
    augment: Augment = None,
    workers: Workers = 0,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.", rich_help_panel=options.RARE)] = 0,
    save_every: SaveEvery = None,
    resume: Resume = False,
    kind: options.Kind = None,
    random_weights: options.RandomWeights = False,
    trust_pickle: options.TrustPickle = False,
    as_json: options.Json = False,
) -> None:
    """Fine-tune a network on a folder of images, on a CPU, a GPU or several.

    FILE is what aliasfix converted or calibrated; a MODEL is converted first. With labels (a folder for each
    class) the loss is half theirs and half the original's; without, the original's alone.

    \b
    aliasfix finetune converted.safetensors --images photos -o run
    aliasfix finetune calibrated.safetensors --original timm:resnet18 --images photos -o run --consistency 0.5
    accelerate launch --num_processes 2 -m aliasfix finetune converted/ --images photos -o run --resume
    """
    args = options.arguments(arg)
    # a run that goes on has to begin with the same random weights
    model = targets.open_model(target, args, checkpoint_file, random_weights, trust_pickle, recipe=recipe, seed=seed)
    if report(model) is None:
        with console.working("converting"):
            convert(model, recipe=recipe, inplace=True)
    if report(model) is None:
        console.fail(f"nothing to convert in {target}", 3)
    teacher = None if original is None else _original(original, model, args, trust_pickle)
    with console.working("fine-tuning"):
        found = finetune_model(
            model, images, output, original=teacher, validation=_held(validation), distillation=distillation,
            temperature=temperature, consistency=consistency, epochs=epochs, batch_size=batch_size, lr=lr,
            optimizer=optimizer, weight_decay=weight_decay, schedule=schedule, warmup_epochs=warmup_epochs, ema=ema,
            mixed_precision=mixed_precision, batch_statistics=batch_statistics, preprocessing=preprocessing,
            augmentation=options.arguments(augment), workers=workers, seed=seed, save_every=save_every, resume=resume,
            output=options.output(None, kind),
        )  # fmt: skip
    from accelerate import PartialState

    process = PartialState()
    if process.is_main_process:
        if as_json:
            console.print_json(json.loads(found.to_json()))
        else:
            console.print_table(found)
            print(f"{found.path}: {found.kept}")
    process.destroy_process_group()


def _original(target: str, model: nn.Module, args: dict[str, Any], trust: bool) -> nn.Module:
    """What to distil from: a model by name, or the one trained as it was, with the weights of a file."""
    named = target if opening.names_file(target) else targets.find(target)
    with console.working(f"loading {named}"):
        return opening.open_original(named, model, args, trust)


def _held(text: str | None) -> float | str | None:
    """A share where it is a number, else a folder."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
