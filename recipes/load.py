"""From a YAML file and `key=value` overrides to a recipe, with all its problems told at once."""

from __future__ import annotations

import dataclasses
import tempfile
import typing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipes import schema, shipped
from recipes.environment import interpolated_secret
from recipes.errors import RecipeError
from recipes.listing import either
from recipes.problem import Problem, did_you_mean
from recipes.recipe import Recipe, all_problems

DEFAULT, RECIPE, COMMAND_LINE = "default", "recipe", "command line"

# Relative ones are taken from the recipe's folder, or from the working directory when they come
# from the command line or a default. Everything is absolute afterwards: workers run elsewhere.
_PATHS = ("data.chat_template", "storage.path", "storage.cache", "ray_job.code")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRecipe:
    """A recipe without problems, the file it came from, and the origin of each value by path."""

    recipe: Recipe
    file: Path
    origins: Mapping[str, str]


def load(reference: str | Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe.

    `reference` is a YAML file or the name of a shipped recipe; `overrides` are `path=value`, the
    value in YAML, everything after the first `=`. Lists replace, they are not merged.

    Raises `RecipeError` with every problem there is.
    """
    file = shipped.find(reference)
    problems: list[Problem] = []
    folders: dict[str, Path] = {}
    values: dict[str, Any] = {}
    origins = dict.fromkeys(schema.fields(), DEFAULT)
    layers = [(RECIPE, file.parent, _read(file)), (COMMAND_LINE, Path.cwd(), _parse(overrides))]
    for origin, folder, tree in layers:
        for path, value in _leaves(tree, problems):
            values[path], origins[path], folders[path] = value, origin, folder
    values.setdefault("name", file.stem)
    values.setdefault("storage.path", str(Path.cwd() / "runs"))
    resolved = {
        path: _absolute(path, value, folders.get(path, Path.cwd()))
        for path, value in _resolve(values).items()
    }
    for path in resolved:
        if schema.fields()[path].item is not None:
            folder = folders.get(path, Path.cwd())
            resolved[path] = _items(schema.fields()[path], resolved[path], folder, problems)
    recipe = _build(resolved, problems)
    if problems or recipe is None:
        raise RecipeError(_report(file, problems))
    return LoadedRecipe(recipe=recipe, file=file, origins=origins)


def load_text(text: bytes, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a resolved recipe that lies in no file here."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_bytes(text)
        return load(str(file), overrides)


def _read(file: Path) -> dict[str, Any]:
    try:
        node = OmegaConf.load(file)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read: {error}") from error
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise RecipeError(f"{file}: is not YAML: {' '.join(str(error).split())}") from error
    tree = OmegaConf.to_container(node, resolve=False)
    if not isinstance(tree, dict):
        raise RecipeError(f"{file}: holds a {type(tree).__name__}, not sections with keys")
    return {str(key): value for key, value in tree.items()}


def _parse(overrides: Sequence[str]) -> dict[str, Any]:
    """Overrides as a flat mapping of path to value."""
    values: dict[str, Any] = {}
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise RecipeError(
                f"command line: '{override}' is no override; write path=value, "
                "such as train.steps=100"
            )
        try:
            node = OmegaConf.from_dotlist([f"value={text}"])
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            raise RecipeError(
                f"command line: {path}: '{text}' is not YAML: {' '.join(str(error).split())}"
            ) from error
        tree = OmegaConf.to_container(node, resolve=False)
        assert isinstance(tree, dict)
        values[path.strip()] = tree["value"]
    return values


def _leaves(tree: Mapping[str, Any], problems: list[Problem]) -> Iterator[tuple[str, Any]]:
    """Paths and values of a tree whose keys are known; the others become problems."""
    for key, value in tree.items():
        path = str(key)
        if path in schema.fields():
            yield path, value
        elif path in schema.sections():
            if isinstance(value, dict):
                inner = {f"{path}.{name}": item for name, item in value.items()}
                yield from _leaves(inner, problems)
            elif value is not None:
                problems.append(
                    Problem(path=path, value=value, message="is a section, not a value")
                )
        else:
            problems.append(unknown(path))


def unknown(path: str) -> Problem:
    """The problem that a path is no key."""
    section, dot, name = path.partition(".")
    if not dot:
        known = [*schema.sections(), *(p for p in schema.fields() if "." not in p)]
        elsewhere = [p for p in schema.fields() if p.endswith(f".{path}")]
        hint = did_you_mean(path, known) or f"Known: {', '.join(known)}"
        if elsewhere:
            hint = f"Did you mean '{elsewhere[0]}'?"
        return Problem(path=path, message="is no key of a recipe", hint=hint)
    if section not in schema.sections():
        hint = did_you_mean(section, schema.sections())
        return Problem(path=path, message=f"there is no section {section}", hint=hint)
    known = [p.partition(".")[2] for p in schema.fields() if p.startswith(f"{section}.")]
    hint = did_you_mean(name, known) or f"Known: {', '.join(known)}"
    return Problem(path=path, message=f"is no key of {section}", hint=hint)


def _absolute(path: str, value: Any, folder: Path) -> Any:
    if path == "base.source" and isinstance(value, str):
        # `org/model` is a hub id unless such a folder lies there.
        is_path = (
            value.startswith((".", "/", "~"))
            or value.endswith(".gguf")
            or (folder / value).is_dir()
        )
        return _absolute_path(value, folder) if is_path else value
    return _absolute_path(value, folder) if path in _PATHS else value


def _absolute_path(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or not value or value.startswith("sample:") or "://" in value:
        return value
    return str((folder / Path(value).expanduser()).resolve())


def _placed(kind: Any, name: str, value: Any, folder: Path) -> Any:
    """An option of an entry, its path made absolute if it holds one."""
    if name in kind.paths:
        return _absolute_path(value, folder)
    return _absolute_function(value, folder) if name in kind.functions else value


def _absolute_function(value: Any, folder: Path) -> Any:
    """`file.py:function` with the file's absolute path. A module that lies in the recipe's folder
    is such a file; others are installed, as workers do not see that folder as a place of modules.
    """
    if not isinstance(value, str):
        return value
    place, _, function = value.rpartition(":")
    if not place.endswith(".py"):
        file = f"{place.replace('.', '/')}.py"
        if not place or not (folder / file).is_file():
            return value
        place = file
    return f"{_absolute_path(place, folder)}:{function}"


def _resolve(values: Mapping[str, Any]) -> dict[str, Any]:
    """Interpolations such as `${oc.env:DATA}` or `${train.steps}` replaced by their values."""
    tree = OmegaConf.create({})
    for path, value in values.items():
        OmegaConf.update(tree, path, value, force_add=True)
        if name := interpolated_secret(value):
            raise RecipeError(
                f"{path}: would write the value of {name} into the run's folder. Name it in "
                f"cluster.env: [{name}], which hands it to the workers alone"
            )
    try:
        OmegaConf.resolve(tree)
    except OmegaConfBaseException as error:
        raise RecipeError(f"recipe: {str(error).splitlines()[0]}") from error
    plain = OmegaConf.to_container(tree)
    assert isinstance(plain, dict)
    return {
        path: plain[path] if "." not in path else plain[path.split(".")[0]][path.split(".")[1]]
        for path in values
    }


def _items(leaf: schema.Field, value: Any, folder: Path, problems: list[Problem]) -> list[Any]:
    """The objects of a list such as data.clean; entries that are none become problems."""
    entries = value if isinstance(value, list) else [] if value is None else [value]
    assert leaf.item is not None
    found = []
    for number, entry in enumerate(entries):
        place = f"{leaf.path}[{number}]"
        kind = leaf.item.kind_of(entry, place, problems)
        options = leaf.item.options_of(entry) if kind is not None else None
        if kind is None:
            continue
        if not isinstance(options, dict):
            problems.append(Problem(path=place, value=options, message="are no options"))
            continue
        known = [option.path for option in schema.fields_of(kind, "")]
        for name in [name for name in options if name not in known]:
            hint = did_you_mean(str(name), known) or f"Known: {', '.join(known) or 'none'}"
            problems.append(Problem(path=f"{place}.{name}", message="is no key", hint=hint))
        values = {
            f"{place}.{name}": _placed(kind, name, item, folder) for name, item in options.items()
        }
        item = _typed(kind, f"{place}.", values, problems)
        if item is not None:
            found.append(item)
    return found


def _build(values: Mapping[str, Any], problems: list[Problem]) -> Recipe | None:
    """The recipe made of typed values; None when a section lacks a value it needs."""
    parts: dict[str, Any] = {}
    for name in schema.sections():
        section = _typed(_class_of(name, values, problems), f"{name}.", values, problems)
        if section is not None:
            parts[name] = section
    top = _typed_node(Recipe, "", values, problems)
    for path in ("name", "description", "task", "seed"):
        parts[path] = top[path]
    if len(parts) < len(dataclasses.fields(Recipe)):
        problems += [
            p for name in schema.sections() if name in parts for p in parts[name].problems()
        ]
        return None
    recipe = Recipe(**parts)
    told = {problem.path for problem in problems}
    problems += [problem for problem in all_problems(recipe) if problem.path not in told]
    return recipe


def _class_of(section: str, values: Mapping[str, Any], problems: list[Problem]) -> type:
    """The class of a section, by its kind if it has several; keys of other kinds are problems."""
    default = schema.sections()[section][0]
    kinds = schema.kinds(section)
    if not kinds:
        return default
    path = f"{section}.kind"
    kind = values.get(path, schema.fields()[path].default)
    if kind not in kinds:
        hint = did_you_mean(str(kind), kinds)
        allowed = schema.fields()[path].allowed
        problems.append(
            Problem(path=path, value=kind, message="is no kind", allowed=allowed, hint=hint)
        )
        return default
    keys = {
        name: {leaf.path for leaf in schema.fields_of(one, f"{section}.")}
        for name, one in kinds.items()
    }
    for key in sorted(key for key in values if key.startswith(f"{section}.")):
        # With null the command line takes back what the file says of another kind.
        if key in keys[kind] or values[key] is None:
            continue
        homes = either([name for name, known in keys.items() if key in known])
        problems.append(
            Problem(
                path=key,
                value=values[key],
                message=f"is no key of {path} = {kind}",
                hint=f"Leave it out ({key}=null takes it back), or set {path} to {homes}",
            )
        )
    return kinds[kind]


def _typed(
    kind: type, prefix: str, values: Mapping[str, Any], problems: list[Problem]
) -> Any | None:
    node = _typed_node(kind, prefix, values, problems)
    missing = [name for name in node if OmegaConf.is_missing(node, name)]
    for name in missing:
        path = prefix + str(name)
        if path not in {problem.path for problem in problems}:
            leaf = next(leaf for leaf in schema.fields_of(kind, prefix) if leaf.path == path)
            problems.append(
                Problem(path=path, message="must be given", allowed=leaf.allowed, hint=leaf.doc)
            )
    return None if missing else OmegaConf.to_object(node)


def _typed_node(
    kind: type, prefix: str, values: Mapping[str, Any], problems: list[Problem]
) -> DictConfig:
    """OmegaConf's typed node of a dataclass with the given values; wrong types become problems."""
    node: DictConfig = OmegaConf.structured(kind)
    OmegaConf.set_readonly(node, False)
    for leaf in schema.fields_of(kind, prefix):
        path, name = leaf.path, leaf.path[len(prefix) :]
        if path not in values or any(problem.path == path for problem in problems):
            continue
        value = values[path]
        if typing.get_origin(leaf.type) is list and isinstance(value, str | int | float):
            value = [value]  # `adapter.targets=all-linear` means a list of one
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of 5 given as "5"
                node[name] = value
        except OmegaConfBaseException:
            problems.append(
                Problem(path=path, value=value, message="has a wrong type", allowed=leaf.allowed)
                if value is not None
                else Problem(path=path, message="must not be null", allowed=leaf.allowed)
            )
    return node


def _report(file: Path, problems: Sequence[Problem]) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n".join([f"{file}: {count}", *(f"  {problem}" for problem in problems)])
