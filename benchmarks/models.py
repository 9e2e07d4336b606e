"""`probe` of a public zoo: image models of timm, language and vision models of transformers.

    pip install timm transformers
    python benchmarks/models.py [--models 120] [--images 16] [--only PATTERN] [--output models.csv]

The smallest models of every module of timm, and small configurations of transformers, with random
weights, each in a process of its own. Of each: whether the probe ended, whether the model is
afterwards what it was, its stages and layers with weights, and time and memory. A model with fewer
than one stage per six such layers must be told of by the report itself.
"""

import argparse
import copy
import csv
import fnmatch
import itertools
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from machine import describe
from torch import Tensor, nn

from paperlib import load_dataset, probe
from paperlib.core.vision import torchvision  # noqa: F401  timm imports it, and fails where that does

PATIENCE = 1800  # seconds for a model
PER_STAGE = 6  # layers with weights, at most, in a stage of which nothing is said
MEASURES = ["r_squared", "correlation", "separation"]
TOKENS = 24
SMALL = {
    "vocab_size": 200, "pad_token_id": 0, "hidden_size": 32, "embedding_size": 32, "d_model": 32,
    "n_embd": 32, "dim": 32, "num_hidden_layers": 3, "num_layers": 3, "n_layer": 3, "n_layers": 3,
    "encoder_layers": 2, "decoder_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "n_head": 4, "n_heads": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "num_heads": 4, "intermediate_size": 64, "d_ff": 64, "d_kv": 8, "hidden_dim": 64, "head_dim": 8,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "ffn_dim": 64, "max_position_embeddings": 64,
    "n_positions": 64, "image_size": 32, "patch_size": 8, "word_embed_proj_dim": 32,
    "use_cache": False,
}  # fmt: skip
WORDS = """
albert bart bert bert-generation big_bird biogpt bloom camembert codegen convbert cohere ctrl
deberta deberta-v2 distilbert electra ernie falcon fnet gemma gemma2 gpt2 gpt_bigcode gpt_neo
gpt_neox gptj granite helium layoutlm llama mamba megatron-bert mistral mixtral mpnet mpt mra
nystromformer olmo opt pegasus persimmon phi qwen2 qwen3 rembert roberta roformer squeezebert
stablelm starcoder2 t5 xglm xlm xlm-roberta xlnet xmod yoso
"""
PICTURES = """
beit convnext convnextv2 deit dinov2 ijepa pvt_v2 regnet resnet segformer swin vit
"""

Build = Callable[[], tuple[nn.Module, Any]]


def pictures(count: int, shape: tuple[int, ...]) -> Tensor:
    """Colour images of this shape, from a data set that ships."""
    images = load_dataset("patches").floats("train", grey=False, limit=count)
    images = images.expand(-1, shape[0], -1, -1) if images.shape[1] == 1 else images
    return nn.functional.interpolate(images, shape[1:], mode="bilinear", antialias=True)


def image_models(count: int, images: int) -> Iterator[tuple[str, Build]]:
    """The smallest models of each of timm's modules, one of each before a second one of any."""
    import timm

    modules = timm.list_modules() if count else []
    sizes: dict[str, dict[str, int]] = {module: {} for module in modules}
    for module, found in sizes.items():
        for name in timm.list_models(module=module):
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = timm.create_model(name)
            found[name] = sum(p.numel() for p in model.parameters())
    ranked = [sorted(found, key=found.__getitem__) for found in sizes.values()]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*ranked))
    for name in itertools.islice(filter(None, in_turn), count):
        yield f"timm {name}", lambda name=name: image_model(name, images)


def image_model(name: str, images: int) -> tuple[nn.Module, Any]:
    """A model of timm with random weights, and images of its size."""
    import timm

    model = timm.create_model(name)
    return model, pictures(images, timm.data.resolve_model_data_config(model)["input_size"])


def transformers_models(images: int) -> Iterator[tuple[str, Build]]:
    """Small configurations of transformers."""
    for kind in (*WORDS.split(), *PICTURES.split()):
        yield f"transformers {kind}", lambda kind=kind: transformers_model(kind, images)


def transformers_model(kind: str, images: int) -> tuple[nn.Module, Any]:
    """A model of a small configuration with random weights, and words or images for it."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(kind)
    for name, value in SMALL.items():
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, value)
    model = AutoModel.from_config(config)
    if kind in PICTURES.split():
        side = getattr(config, "image_size", 32)
        return model, pictures(images, (3, side, side) if isinstance(side, int) else (3, *side))
    words = torch.randint(3, 200, (images, TOKENS), generator=torch.Generator().manual_seed(0))
    given = {"input_ids": words}
    if config.is_encoder_decoder:
        given["decoder_input_ids"] = words
    return model, given


def weighted_layers(model: nn.Module) -> int:
    """How many modules have a weight of two axes or more of their own, embeddings aside."""
    return sum(
        any(p.dim() > 1 for p in module.parameters(recurse=False))
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
    )


def state_of(model: nn.Module) -> tuple[Any, ...]:
    """What a probe must leave as it was."""
    held = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    names = [sorted(vars(module)) for module in model.modules()]
    gradients = [p.grad is None and p.requires_grad for p in model.parameters()]
    return held, modes, hooks, names, gradients, torch.get_rng_state()


def is_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether two states are equal, to the bit."""
    held = one[0].keys() == other[0].keys() and all(
        torch.equal(value, other[0][name]) for name, value in one[0].items()
    )
    return held and one[1:5] == other[1:5] and torch.equal(one[5], other[5])


def look(build: Build) -> dict[str, Any]:
    """Probe a model, and say how it went."""
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    try:
        model, given = build()
        with torch.no_grad():
            called = copy.deepcopy(model).eval()
            called(**given) if isinstance(given, dict) else called(given)
    except Exception as error:
        return {"error": f"does not run by itself: {type(error).__name__}: {error}"[:200]}
    before, begin = state_of(model), time.perf_counter()
    found: dict[str, Any] = {"layers": weighted_layers(model), "error": ""}
    try:
        report = probe(model, given)
        said = report.summary()
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"[:200]
    else:
        result = report.result
        found["stages"] = result.sizes["stage"]
        found["finite"] = bool(result[MEASURES].to_dataarray().notnull().all())
        found["kept"] = round(float(result["r_squared"][0]), 3)
        found["told"] = " weights; to look inside" in said
        found["first"] = said.splitlines()[0][:100]
    found["seconds"] = round(time.perf_counter() - begin, 1)
    found["unchanged"] = is_same(before, state_of(model))
    found["gigabytes"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    return found


def apart(build: Build) -> dict[str, Any]:
    """The same in a process of its own."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=lambda: answers.put(look(build)))
    process.start()
    process.join(PATIENCE)
    if process.is_alive() or process.exitcode:
        process.kill()
        return {"error": f"no answer in {PATIENCE} s, or exit status {process.exitcode}"}
    return answers.get()


def is_coarse(row: dict[str, Any]) -> bool:
    """Whether a model has too few stages and its report does not say so."""
    return bool(row.get("stages")) and not row["told"] and row["layers"] > PER_STAGE * row["stages"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=int, default=120, help="of timm")
    parser.add_argument("--images", type=int, default=16, help="or sentences")
    parser.add_argument("--only", default="*", help="names, such as 'timm res*'")
    parser.add_argument("--output", type=Path, default=Path("models.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads do not survive the fork
    print(describe())
    columns = ["model", "layers", "stages", "finite", "kept", "told", "unchanged", "seconds",
               "gigabytes", "first", "error"]  # fmt: skip
    rows: list[dict[str, Any]] = []
    with options.output.open("w", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        for name, build in (
            *transformers_models(options.images),
            *image_models(options.models, options.images),
        ):
            if fnmatch.fnmatch(name, options.only):
                rows.append({"model": name, **apart(build)})
                table.writerow(rows[-1])
                file.flush()
                print(*(f"{key} {value}" for key, value in rows[-1].items()), sep=", ", flush=True)
    built = [row for row in rows if not row["error"].startswith("does not run")]
    print(f"{len(built)} models: {sum(bool(r['error']) for r in built)} errors, "
          f"{sum(not r.get('unchanged', True) for r in built)} changed, "
          f"{sum(not r.get('finite', True) for r in built)} with numbers that are not finite, "
          f"{sum(map(is_coarse, built))} with few stages and no word of it")  # fmt: skip


if __name__ == "__main__":
    main()
