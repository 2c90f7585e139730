"""Score two listings against the packaged sample seeds and print the best label and similarity of each.

Run: python examples/score_records.py
"""

from importlib import resources

from ecom_rag import Encoder, score
from ecom_rag.files.records import read

with resources.as_file(resources.files("ecom_rag") / "sample_data" / "seeds.jsonl") as path:
    seeds = list(read(str(path)))
texts = ["Add me on the chat app and transfer the money there", "Wooden chess set for the family, hand made"]
listings = [{"text": text, "metadata": {}} for text in texts]
for result in score(listings, seeds, Encoder.from_pretrained("starter"), top_k=1):
    print(result["topk_metadata"][0]["label"], result["topk_sim"][0], result["text"])
