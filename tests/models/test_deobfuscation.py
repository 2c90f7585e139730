"""Disguised letters are read as what they stand for; everything else stays."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_rag.errors import BankError, UsageError
from ecom_rag.models import Encoder
from ecom_rag.models.checkpoints.locate import locate
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.models.deobfuscation import Deobfuscator, deobfuscated
from ecom_rag.pipeline import Pipeline, Recall
from ecom_rag.seeds.bank import BankSettings, SeedBank, build
from ecom_rag.text.analysis import Analyzer
from ecom_rag.text.normalization import normalize

DISGUISED = {
    "Onl1ne c@s1no, p4yout every night": "Online casino, payout every night",
    "a p1st0l with b.u.l.l.e.t.s, no perm1t": "a pistol with bullets, no permit",
    "h1gh qu@lity, s@me b0x": "high quality, same box",
    "C u r e for di@betes": "Cure for diabetes",
    "n o  d o c t o r": "n o  doctor",
    "c*u*r*e can.cer, p_a_y me": "cure cancer, pay me",
    "F.R.E.E M0NEY": "FREE MONEY",
    "SALE!m0ney": "SALE!money",
    "cas\u0456no \u0440\u0430ssport m\u043eney": "cas\u0456no passport money",  # Cyrillic а and о; the і is in no table
    "r\u200beal mon\u00adey": "real money",
    "\uff32\uff45\uff50\uff4c\uff49\uff43\uff41": "Replica",
    "代 办 證 件，包 邮 到 家": "代办證件,包邮到家",
    "髙.仿手袋，拿红*包，薇❤信": "髙仿手袋,拿红包,薇信",
}
# Titles as shops write them: models, sizes, units, abbreviations, compounds, brands.
CLEAN = """
iPhone13 Pro Max 128GB 5G
Galaxy A55 / S22 Ultra, 8+256G, type-C, 45W
MP3 player, WiFi-6E router AX3000, USB3.0 hub, H1N1, 2-in-1
WH1000XM5 headset, KX-TG1032S phone, G502 mouse, i7-13700K, RTX4090, DDR4
A4 paper, 3M tape, 12V/24V, 5.5inch, 1/2-in, 9mm, M6x20
size S M L XL, T-shirt, V-neck, 3D print, B2B, O2O, 4K, PS5 Pro
nova3i P10plus Reno10 Mate30 note5A vivoX7Plus iphone6s
WD40 spray, WD-40, vitamin B12, omega-3, SPF50+, PM2.5, CO2 meter, H2O
$5 off, US$20, 100%, user@shop.example, www.shop.example, No.1, 24/7
新款2024春秋T恤 男士 纯棉 M-3XL
苹果15ProMax手机壳 防摔 磨砂 华为Mate60
约翰·勒卡雷 谍战小说 全集(1-6册)
深邃蓝-简约款 白色/黑色 5双装
""".strip().splitlines()


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(locate("starter"))


def test_disguised_letters(tokenizer):
    assert dict(zip(DISGUISED, deobfuscated(list(DISGUISED), tokenizer), strict=True)) == DISGUISED


def test_titles_of_shops_stay(tokenizer):
    assert deobfuscated(CLEAN, tokenizer) == normalize(CLEAN, lower=False)


def test_only_what_the_model_knows_is_read(tokenizer):
    """The same spelling where the word is one, and where it is none."""
    assert deobfuscated(["m0ney", "q0xkv", "w4llet", "w4llqt"], tokenizer) == ["money", "q0xkv", "w4llet", "w4llqt"]


ANY = st.lists(st.text(st.sampled_from("aZ01347@$!|.-*_ 代办\n\u200b\u0430\ud800é"), max_size=30), max_size=6)


@given(ANY)
def test_each_text_is_read_by_itself(texts):
    counting = SimpleNamespace(ids=lambda words, _: SimpleNamespace(lengths=np.array([len(w) for w in words], int)))
    found = deobfuscated(texts, counting)
    assert len(found) == len(texts)
    assert found == [deobfuscated([text], counting)[0] for text in texts]


@pytest.mark.parametrize("part", ["a.", "a1", "a!", "|a", "0", "a ", "代 ", "代.", "aa.b"])
def test_long_runs_end(part, tokenizer):
    """A pattern that looks back over all it has read would take minutes."""
    assert len(deobfuscated([part * 50_000 + "1"], tokenizer)) == 1


def test_an_encoder_that_reads_so(bge_folder, tmp_path):
    """Its vectors are those of the texts as they are read, and are not taken for those of the texts as written."""
    as_written = Encoder.from_pretrained(bge_folder)
    encoder = Encoder.from_pretrained(bge_folder, deobfuscate=True)
    written, read = [["ＦＲＥＥ 代 办 證 件"], ["FREE 代办證件"]]
    for side in ("query", "passage"):
        found = encoder.encode(written, side=side).dense
        assert np.array_equal(found, as_written.encode(read, side=side).dense)
        assert not np.array_equal(found, as_written.encode(written, side=side).dense)
    assert encoder.fingerprint != as_written.fingerprint
    with pytest.raises(UsageError, match="token ids are of model"):
        as_written.run(encoder.prepare(written))
    build(tmp_path / "bank", [{"text": written[0], "metadata": {"id": "1"}}], BankSettings(["dense"]), encoder=encoder)
    with SeedBank.open(tmp_path / "bank") as bank:
        assert bank.encoder.settings["deobfuscate"]
        assert bank.encoder.fingerprint == encoder.fingerprint
    with pytest.raises(BankError, match=as_written.fingerprint):
        SeedBank.open(tmp_path / "bank", encoder=as_written)
    with pytest.raises(UsageError, match="`deobfuscate`"):
        Encoder.from_pretrained(bge_folder, deobfuscate="yes")


def test_bm25_that_reads_so(tmp_path):
    as_written, reading = Analyzer(), Analyzer(reader=Deobfuscator())
    assert as_written.tokens(["c@s1no"]) != [["casino"]] == reading.tokens(["c@s1no"])
    assert as_written.fingerprint() == (
        "Analyzer(simplify=True, stem=True, stopwords=True, subwords=True, pieces=True, joined=True, words=())"
    )  # banks of earlier versions have it
    assert reading.fingerprint() != as_written.fingerprint()
    with pytest.raises(UsageError, match="`reader` is of type str"):
        Analyzer(reader="starter")
    seeds = [{"text": text, "metadata": {"id": text}} for text in ("online casino", "leather wallet")]
    build(tmp_path / "bank", seeds, BankSettings(["bm25"], analyzer=reading))
    with SeedBank.open(tmp_path / "bank") as bank:
        assert bank.settings.analyzer == reading
        bank.upsert([{"text": "r3al m0ney", "metadata": {"id": "new"}}])
        [found, new] = Pipeline(bank, Recall(top_k=1)).recall(
            [{"text": text, "metadata": {}} for text in ("c.a.s.i.n.o", "real money")]
        )
    assert [one["topk_metadata"][0]["id"] for one in (found, new)] == ["online casino", "new"]
