"""Checkpoints that are kept small and used as ordinary folders: each is unpacked once, into the cache."""

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ecom_rag.errors import ModelError
from ecom_rag.files import cache, disk

WEIGHTS = "model.safetensors"


def unpacked_as(name: str, make: Callable[[Path], None]) -> Path:
    """An ordinary checkpoint in the cache; made on the first call, whole or not at all.

    Where the cache cannot be written it is made in a temporary folder, for this process.

    Args:
        name: Of its folder in the cache: says what is in it, a digest of the source for example.
        make: Fills an empty folder with ``config.json``, tokenizer and ``model.safetensors``.

    Raises:
        ModelError: From ``make``, or there is no room for the weights anywhere.
    """
    place = cache.cache_folder() / "unpacked" / name
    if _whole(place):
        return place
    try:
        _make(place, make)
    except (OSError, SafetensorError) as error:  # a full disk is safetensors' own error
        place = cache.fallback(place, error)
        if not _whole(place):
            try:
                _make(place, make)
            except (OSError, SafetensorError) as second:
                raise ModelError(f"{place}: cannot be written ({cache.reason(second)}); {cache.REMEDY}") from None
    return place


def _make(place: Path, make: Callable[[Path], None]) -> None:
    with cache.being_made(place) as made:
        fresh = made / place.name
        fresh.mkdir()
        make(fresh)
        disk.open_to_others(fresh)
        if place.exists() and not _whole(place):
            place.rename(made / "damaged")
        try:
            fresh.rename(place)
        except OSError:
            if not _whole(place):  # else another process was quicker
                raise


def _whole(place: Path) -> bool:
    """Whether an unpacked checkpoint is there with all of its weights; safetensors compares their length."""
    try:
        with safe_open(place / WEIGHTS, "np") as weights:
            return bool(weights.keys()) and (place / "config.json").exists()
    except (OSError, SafetensorError):
        return False
