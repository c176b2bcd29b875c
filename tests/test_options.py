"""The options of a conversion are those of `Recipe`, those of images of `Preprocessing`, wherever they are given."""

import dataclasses
import inspect
import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import typer
from torch import nn

import aliasfix
from aliasfix import AliasfixError, Preprocessing, Recipe
from aliasfix.cli import app

FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}
OTHER = {  # than the default, for each
    "filter": "bin5",
    "padding": "zero",
    "stem": "full",
    "average": "replace",
    "gather": "blur",
    "include": ("1",),
    "exclude": ("2",),
    "budget": 300.0,
    "memory_budget": 300.0,
    "phase": "adaptive",
    "phase_norm": 1.0,
    "activation": "filtered",
    "oversampling": 4,
    "norm": "alias-free",
    "pool": "average",
}
COMMANDS = {"convert": [], "inspect": [], "export": [], "finetune": [], "compare": ["filter"]}  # without


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.MaxPool2d(2))


def described(documented: Any) -> set[str]:
    """The names that the section on arguments explains."""
    text = inspect.getdoc(documented).split("Args:\n")[1].split("\n\n")[0]
    heads = [line.split(":")[0] for line in text.splitlines() if line.startswith("    ") and line[4] != " "]
    return {name.strip() for head in heads for name in head.split(",")}


@pytest.mark.parametrize("use", [aliasfix.convert, aliasfix.inspect], ids=lambda f: f.__name__)
def test_the_signatures_have_the_fields_with_their_defaults(use: Callable[..., Any]) -> None:
    parameters = inspect.signature(use).parameters
    assert {name: parameters[name].default for name in FIELDS} == {n: field.default for n, field in FIELDS.items()}


@pytest.mark.parametrize("documented", [Recipe, aliasfix.convert], ids=lambda f: f.__name__)
def test_the_docstrings_explain_the_fields(documented: Any) -> None:
    assert set(FIELDS) <= described(documented)


@pytest.mark.parametrize("name", FIELDS)
def test_every_option_arrives(name: str) -> None:
    expected = Recipe(**{name: OTHER[name]})
    assert expected != Recipe()
    assert aliasfix.inspect(net(), **{name: OTHER[name]}).recipe == expected
    assert aliasfix.report(aliasfix.convert(net(), **{name: OTHER[name]})).recipe == expected


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("use", [aliasfix.convert, aliasfix.inspect], ids=lambda f: f.__name__)
def test_no_option_stands_beside_a_recipe(use: Callable[..., Any], name: str) -> None:
    for value in (OTHER[name], FIELDS[name].default):
        with pytest.raises(AliasfixError, match="recipe= holds all options"):
            use(net(), recipe=Recipe("bin4"), **{name: value})
    with pytest.raises(AliasfixError, match="recipe= holds all options"):
        use(net(), "tri3", recipe=Recipe("bin4"))
    assert use(net(), filter="bin5", recipe=None) is not None


def test_warnings_point_at_the_call() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        aliasfix.convert(nn.Sequential(nn.ReLU()))
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_have_the_fields_with_their_defaults_and_texts(command: str) -> None:
    given = {option.name: option for option in typer.main.get_command(app).commands[command].params}
    for name, field in FIELDS.items():
        if name in COMMANDS[command]:
            assert name not in given
            continue
        option = given[name]
        assert option.opts == [f"--{name.replace('_', '-')}"]
        assert option.default is None
        assert option.show_default == (False if field.default is None else str(field.default))
        assert option.help == field.metadata["help"]
        assert option.metavar == (
            "|".join(map(str, field.metadata.get("choices", ()))) or field.metadata.get("metavar")
        )


def test_a_command_takes_a_method_and_what_is_given_beside_it_wins(capsys: pytest.CaptureFixture[str]) -> None:
    for given, expected in (([], ("tri3", "reflect")), (["--method", "aps"], ("delta1", "circular"))):
        for filter in ([], ["--filter", "tri3"]):
            app(["inspect", "timm:resnet18", "--json", *given, *filter], standalone_mode=False)
            recipe = json.loads(capsys.readouterr().out)["plan"]["recipe"]
            assert recipe["filter"] == ("tri3" if filter else expected[0])
            assert recipe["padding"] == expected[1]


IMAGES = {field.name: field for field in dataclasses.fields(Preprocessing) if "help" in field.metadata}


def test_the_docstring_of_preprocessing_explains_its_fields() -> None:
    assert {field.name for field in dataclasses.fields(Preprocessing)} == described(Preprocessing)


@pytest.mark.parametrize("command", ["convert", "compare", "finetune"])
def test_the_commands_that_read_images_take_one_preprocessing(command: str) -> None:
    given = {option.name: option for option in typer.main.get_command(app).commands[command].params}
    assert set(IMAGES) == {"size", "resize", "crop_pct", "mean", "std", "interpolation", "unreadable"}
    for name, field in IMAGES.items():
        assert given[name].opts == [f"--{name.replace('_', '-')}"]
        assert given[name].default is None
        assert given[name].help == field.metadata["help"]


@pytest.mark.parametrize("function", ["compare", "compare_filters", "calibrate", "finetune", "convert_file"])
def test_the_functions_that_read_images_take_one_too(function: str) -> None:
    assert inspect.signature(getattr(aliasfix, function)).parameters["preprocessing"].default is None
