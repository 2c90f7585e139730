"""The demo as a service: a bank of the samples, a policy for it, and sample listings that wait for a person."""

import threading
from collections.abc import Callable
from pathlib import Path

from ecom_rag.client import Client
from ecom_rag.demo.folder import SAMPLES, check_folder, write_samples
from ecom_rag.demo.run import ANALYZER, ENCODER, RECALL, ROUTES, calibrated
from ecom_rag.files import records
from ecom_rag.pipeline import Pipeline
from ecom_rag.seeds.bank import BankSettings, SeedBank, build
from ecom_rag.serving.run import serve
from ecom_rag.serving.settings import Serve

BANK, POLICY, STATE = "bank", "service_policy.json", "state"


def run_service(folder: str, *, port: int, told: Callable[[str], None]) -> None:
    """Serve the sample bank until a signal ends it.

    Args:
        folder: Created where it does not exist; bank, policy and state stay there, a second run goes on with them.
        port: To listen on; 0 for a free one.
        told: Called with a line for the user.

    Raises:
        UsageError: The folder holds something that is not the demo's, or the port is taken.
    """
    target = Path(folder)
    check_folder(target)
    write_samples(target)
    bank, policy, state = (target / name for name in (BANK, POLICY, STATE))
    if not policy.exists():
        told("building the sample bank and its policy, which takes about 20 seconds")
        _prepare(target, bank, policy)
    new = not state.exists()

    def ready(address: str) -> None:
        told(f"people review at {address}/review, programs find the endpoints at {address}/docs; Ctrl+C stops")
        if new:
            threading.Thread(target=_submit, args=(address, target, told), daemon=True).start()

    told("loading models and the bank")
    settings = Serve(
        banks={"demo": str(bank)}, rerank="starter", policies={"demo": str(policy)}, state=str(state), port=port
    )
    serve(settings, ready=ready)


def _prepare(target: Path, bank: Path, policy: Path) -> None:
    """Build the bank and calibrate a policy on it."""
    encoder = ENCODER.encoder()
    if not bank.exists():
        seeds = records.read(str(target / SAMPLES[1]))
        build(bank, seeds, BankSettings(ROUTES, analyzer=ANALYZER), encoder=encoder, model="starter")
    with SeedBank.open(bank, encoder=encoder) as opened:
        calibrated(target / SAMPLES[2], Pipeline(opened, RECALL, encoder=encoder)).policy.save(policy)


def _submit(address: str, target: Path, told: Callable[[str], None]) -> None:
    """Have the sample listings decided, as a client does."""
    listings = records.read(str(target / SAMPLES[3]))
    new = [{"text": one["text"], "metadata": {key: one["metadata"][key] for key in ("id", "lang")}} for one in listings]
    with Client(address) as client:  # without the labels, which a new listing has not
        decided = client.decide(new)
    review = sum(one["decision"]["action"] == "review" for one in decided)
    told(f"{len(decided)} sample listings came in: {len(decided) - review} were decided, {review} wait for a person")
