"""`hf:FOLDER`: a saved diffusers model with its scheduler, from this machine's disk.

    FOLDER/model_index.json             a pipeline's folder: its network and its scheduler are loaded, nothing else of it
    FOLDER/config.json                  one model's folder, with scheduler_config.json beside it or in scheduler/

Weights are read from safetensors only, since a pickle runs code, and stay in the dtype that they were saved in.
"""

import inspect
import json
import os
from pathlib import Path
from typing import Any

from bench.terminal.usage import UsageError, at_home, in_words

_NETWORKS = ("unet", "transformer", "model")
_LATENT = ("vae", "vqvae", "movq", "decoder")
_CONDITIONS = "a model under a condition needs a factory: def make(): return (lambda x, t: model(x, t, CONDITION)), scheduler"


def load_folder(path: str) -> tuple[Any, Any, tuple[str, ...]]:
    """The model, its scheduler, and what was read.

    Raises:
        UsageError: no such folder or file in it, a class that diffusers does not have, weights without safetensors, a model under a
            condition, or one of latents.
    """
    folder = at_home(path)
    if not os.path.isdir(folder):
        raise UsageError(
            f"--model hf:{path}: there is no folder {path!r} here, and nothing is downloaded: save the model there with "
            "pipeline.save_pretrained, or fetch it with `hf download NAME --local-dir FOLDER`"
        )
    if (folder / "model_index.json").is_file():
        index = _json(folder / "model_index.json")
        _refuse_latents(str(index.get("_class_name")), index)
        model = _model(folder / _network(folder, index))
        return model, _scheduler(folder / "scheduler"), _said(model)
    if (folder / "config.json").is_file():
        beside = [folder, folder / "scheduler", folder.parent / "scheduler"]
        found = [place for place in beside if (place / "scheduler_config.json").is_file()]
        if not found:
            raise UsageError(
                f"--model hf:{path}: config.json is there but no scheduler_config.json, without which the steps are unknown: "
                "save it with scheduler.save_pretrained(FOLDER)"
            )
        model = _model(folder)
        return model, _scheduler(found[0]), _said(model)
    raise UsageError(
        f"--model hf:{path}: neither model_index.json nor config.json is there; give the folder that save_pretrained wrote"
    )


def parts_of(name: str, components: dict[str, Any]) -> tuple[Any, Any, tuple[str, ...]]:
    """Network and scheduler of a pipeline in memory.

    Raises:
        UsageError: it has none, or works in latents.
    """
    _refuse_latents(name, components)
    network = next((components[key] for key in _NETWORKS if components.get(key) is not None), None)
    scheduler = components.get("scheduler")
    if network is None or scheduler is None:
        raise UsageError(
            f"{name} has the parts {', '.join(components)}: a network ({', '.join(_NETWORKS)}) and a scheduler are needed; "
            "let the factory return (model, scheduler)"
        )
    _refuse_condition(network)
    return network, scheduler, _said(network)


def _refuse_latents(name: str, parts: dict[str, Any]) -> None:
    latent = [key for key in _LATENT if parts.get(key) not in (None, [None, None])]
    if latent:
        raise UsageError(
            f"{name} works in the latents of its {latent[0]}: a bound of images is not defined by its network; for a bound of "
            "latents save them as --images LATENTS.npy (float32) and let a factory return (network, scheduler)"
        )


def _network(folder: Path, index: dict[str, Any]) -> str:
    found = [key for key in _NETWORKS if isinstance(index.get(key), list)]
    if not found:
        parts = [key for key in index if not key.startswith("_")]
        raise UsageError(
            f"{folder / 'model_index.json'} names {', '.join(parts) or 'nothing'}: a network ({', '.join(_NETWORKS)}) is needed"
        )
    return found[0]


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(
            f"{path} holds a {type(found).__name__}, not the object that diffusers saves"
        )
    return found


def _class(path: Path) -> Any:
    """The class in diffusers that a configuration names."""
    import diffusers

    if not path.is_file():
        raise UsageError(f"{path} is missing: give the folder that save_pretrained wrote")
    name = _json(path).get("_class_name")
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if found is None:
        raise UsageError(
            f"{path} names the class {name!r}, which diffusers {diffusers.__version__} does not have; "
            "let a factory in FILE.py build the model"
        )
    return found


def _model(folder: Path) -> Any:
    """The network in the dtype of its file."""
    kind = _class(folder / "config.json")
    files = sorted(folder.glob("*.safetensors"), key=lambda file: (file.name.count("."), file.name))
    if not files:
        raise UsageError(
            f"{folder} has no *.safetensors (a pickle runs code and is not loaded): save the model with "
            "save_pretrained(FOLDER, safe_serialization=True)"
        )
    parts = files[0].name.split(".")
    try:
        model = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            torch_dtype=_dtype(files[0]),
            variant=parts[1] if len(parts) == 3 else None,
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise UsageError(
            f"{folder} cannot be loaded as {kind.__name__}: {in_words(error)}"
        ) from error
    _refuse_condition(model)
    return model


def _dtype(file: Path) -> Any:
    """The dtype of the first floating-point tensor in a file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                dtype = opened.get_tensor(name).dtype
                if dtype.is_floating_point:
                    return dtype
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{file} is damaged: {error}; save or fetch it again") from error
    return None


def _refuse_condition(model: Any) -> None:
    """A network that takes more than x_t and t."""
    name, config = type(model).__name__, getattr(model, "config", {})
    asked = list(inspect.signature(model.forward).parameters.values())[2:]
    needed = [each.name for each in asked if each.default is each.empty and each.kind < 2]
    if config.get("class_embed_type") or config.get("num_class_embeds"):
        needed.append("class_labels")
    if needed:
        raise UsageError(f"{name} also takes {', '.join(needed)}; {_CONDITIONS}")


def _scheduler(folder: Path) -> Any:
    path = folder / "scheduler_config.json"
    kind = _class(path)
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, TypeError, ImportError) as error:
        raise UsageError(
            f"{path} cannot be loaded as {kind.__name__}: {in_words(error)}"
        ) from error


def _said(model: Any) -> tuple[str, ...]:
    dtype = str(getattr(model, "dtype", "")).removeprefix("torch.")
    return (f"{type(model).__name__} in {dtype}",)
