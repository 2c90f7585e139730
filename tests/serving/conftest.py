"""A bank, a policy and models that services are started over; made once."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from ecom_rag.serving.settings import Serve
from helpers import small_service


@dataclass(frozen=True)
class Files:
    """What a service is started with."""

    bank: Path
    policy: Path
    encoder: Path
    reranker: Path

    def copied(self, folder: Path) -> "Files":
        """The same bank, so that the policy fits, for a test that changes it."""
        shutil.copytree(self.bank, folder / "bank")
        return Files(folder / "bank", self.policy, self.encoder, self.reranker)

    def settings(self, folder: Path, **others) -> Serve:
        """Of a service with everything, on a free port."""
        return Serve(
            **{
                "banks": {"goods": str(self.bank)},
                "rerank": str(self.reranker),
                "policies": {"goods": str(self.policy)},
                "state": str(folder / "state"),
                "port": 0,
                "placement": {"precision": "fp32"},
                "recall": {"top_k": 5, "depth": 20},
                **others,
            }
        )


@pytest.fixture(scope="session")
def files(tmp_path_factory, m3_folder, xlmr_reranker):
    folder = tmp_path_factory.mktemp("served")
    bank = small_service.make_bank(folder / "bank", m3_folder)
    return Files(bank, small_service.make_policy(folder / "policy.json", bank), m3_folder, xlmr_reranker)
