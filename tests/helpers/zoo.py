"""Tiny checkpoints in the layouts that people have, each a small change of one plain sentence-transformers folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

TEXTS = [
    "Apple iPhone 15 Pro Max Case SHOCKPROOF",
    "apple iphone 15 pro max case shockproof",
    "加微信私下转账便宜 VX123",
    "高仿LV包包 原单 支持验货",
    "a",
    "Buy PRESCRIPTION pills without prescription online today " * 12,
]
_ALL = [*TEXTS, "free shipping on all orders", "the quick brown fox", "Query: query: search passage"]
SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
POOLINGS = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False))


def update(path: Path, **values: object) -> None:
    write(path, {**(json.loads(path.read_text()) if path.exists() else {}), **values})


def wordpiece(*, lower: bool = True) -> transformers.PreTrainedTokenizerFast:
    """As BERT's: the letters and whole words of the texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalizer, splitter = normalizers.BertNormalizer(lowercase=lower), pre_tokenizers.BertPreTokenizer()
    words = {word for text in _ALL for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    letters = {letter for word in words for letter in word}
    pieces = special + sorted(words | letters) + sorted(f"##{letter}" for letter in letters)
    inner = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizer, splitter
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=128, **names)


def noisy(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """With random weights large enough to tell right from wrong."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                weight.copy_(1 + 0.1 * torch.randn_like(weight))
            else:
                weight.normal_(0, 0.15 if weight.ndim >= 2 else 0.05)
    return model.eval()


def save(
    folder: Path, kind: str = "Bert", head: str = "Model", *, lower: bool = True, rows: int = 0, **config: object
) -> None:
    """A network of transformers with the tokenizer; its table has some rows more, or fewer, than there are tokens."""
    tokenizer = wordpiece(lower=lower)
    tokenizer.save_pretrained(folder)
    built = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer) + rows, **{**SIZES, **config})
    noisy(getattr(transformers, f"{kind}{head}")(built)).save_pretrained(folder)


def modules(*kinds: str) -> list[dict[str, object]]:
    """``modules.json``; each kind in the folder that sentence-transformers gives it."""
    return [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]


def settings(folder: Path, pooling: str = "mean") -> None:
    """The files that sentence-transformers 3 puts beside a network."""
    modes = {f"pooling_mode_{name}": name == POOLINGS[pooling] for name in (*POOLINGS.values(), "max_tokens")}
    write(folder / "1_Pooling/config.json", {"word_embedding_dimension": 48, **modes, "include_prompt": True})
    write(folder / "modules.json", modules("Transformer", "Pooling", "Normalize"))
    write(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
    versions = {"sentence_transformers": "3.0.0", "transformers": "4.41.0", "pytorch": "2.3.0"}
    own = {"__version__": versions, "prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write(folder / "config_sentence_transformers.json", own)


def plain(folder: Path, pooling: str = "mean", kind: str = "Bert", head: str = "Model", **options: object) -> None:
    """A whole sentence-transformers folder."""
    save(folder, kind, head, **options)
    settings(folder, pooling)


# Changes of a plain folder


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        changed = change(load_file(folder / "model.safetensors"))
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def edited(name: str, **values: object) -> Callable[[Path], None]:
    return lambda folder: update(folder / name, **values)


def replaced(name: str, content: object) -> Callable[[Path], None]:
    return lambda folder: write(folder / name, content)


def removed(*names: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return apply


def pickled(*, zipped: bool, prefix: str = "", shards: int = 1) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = {prefix + name: tensor for name, tensor in load_file(folder / "model.safetensors").items()}
        (folder / "model.safetensors").unlink()
        names = [f"pytorch_model-{i + 1:05}-of-{shards:05}.bin" for i in range(shards)]
        if shards == 1:
            names = ["pytorch_model.bin"]
        owner = {key: names[i % shards] for i, key in enumerate(tensors)}
        for name in names:
            part = {key: tensor for key, tensor in tensors.items() if owner[key] == name}
            torch.save(part, folder / name, _use_new_zipfile_serialization=zipped)
        if shards > 1:
            write(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": owner})

    return apply


def moved_below(folder: Path) -> None:
    """As before sentence-transformers 1.0: the transformer in a folder of its own."""
    below = folder / "0_Transformer"
    below.mkdir()
    for item in list(folder.iterdir()):
        if item.is_file() and item.name not in ("modules.json", "config_sentence_transformers.json"):
            shutil.move(item, below / item.name)
    listed = modules("Transformer", "Pooling", "Normalize")
    listed[0]["path"] = "0_Transformer"
    write(folder / "modules.json", listed)


def dense(*configs: dict[str, object], last: str = "Normalize") -> Callable[[Path], None]:
    """Dense layers of 48 inputs; a ``residual`` key of the config is left to it."""

    def apply(folder: Path) -> None:
        kinds = ["Transformer", "Pooling", *["Dense"] * len(configs), last]
        write(folder / "modules.json", modules(*kinds))
        width = 48
        for i, own in enumerate(configs, 2):
            config = {
                "in_features": width,
                "out_features": 16,
                "bias": True,
                "activation_function": "torch.nn.modules.activation.Tanh",
                **own,
            }
            write(folder / f"{i}_Dense/config.json", config)
            torch.manual_seed(i)
            layer = torch.nn.Linear(width, 16, bias=bool(config["bias"]))
            state = {f"linear.{name}": value for name, value in layer.state_dict().items()}
            save_file(state, folder / f"{i}_Dense/model.safetensors")
            width = 16

    return apply


def lora(folder: Path) -> None:
    """Adapter files beside the base weights."""
    import peft

    network = transformers.BertModel.from_pretrained(folder)
    asked = peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)
    peft.get_peft_model(network, asked).save_pretrained(folder)
    update(folder / "adapter_config.json", base_model_name_or_path=str(folder))


def lora_alone(folder: Path) -> None:
    lora(folder)
    removed("config.json", "model.safetensors")(folder)


def own_code(folder: Path, *, model_type: str | None, name: str = "config.json") -> None:
    """A folder whose Python, once imported, leaves the file ``ran`` behind."""
    code = f"from pathlib import Path\nPath({str(folder / 'ran')!r}).touch()\n"
    code += "from transformers import BertConfig, BertModel, BertTokenizerFast\n"
    code += "class Own(BertConfig):\n    model_type = 'own'\nclass Net(BertModel):\n    config_class = Own\n"
    code += "class Tok(BertTokenizerFast):\n    pass\n"
    (folder / "own.py").write_text(code)
    known = {"AutoConfig": "own.Own", "AutoModel": "own.Net", "AutoModelForSequenceClassification": "own.Net"}
    update(folder / name, auto_map=known if name == "config.json" else {"AutoTokenizer": ["own.Tok", "own.Tok"]})
    if model_type:
        update(folder / "config.json", model_type=model_type)


class Evil:
    """A pickle that touches a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


def evil(name: str, *, zipped: bool = True) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        if name == "pytorch_model.bin":
            (folder / "model.safetensors").unlink()
        (folder / name).parent.mkdir(exist_ok=True)
        content = {"weight": Evil(folder / "ran"), "bias": torch.zeros(1)}
        torch.save(content, folder / name, _use_new_zipfile_serialization=zipped)

    return apply
