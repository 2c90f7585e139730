"""Recall on a Spark cluster: each Python worker opens the bank and loads the models once, and takes batch after batch.

On every machine ecom-rag is installed, and the bank and its model lie under the same paths.
Run: spark-submit examples/spark_recall.py listings.parquet /shared/bank recalled.parquet
The input has a column `text`, and one `metadata` of JSON objects if it likes.
"""

import sys

from pyspark.sql import SparkSession

from ecom_rag.distribution.arrow import RESULTS, ArrowBlocks
from ecom_rag.models.spec import ModelSpec
from ecom_rag.pipeline import Recall, recall_work

listings, bank, output = sys.argv[1:]
spark = SparkSession.builder.appName("ecom_rag recall").getOrCreate()
# Fusion weights and the state of the bank are settled here; float32 is the same on machines of different kinds.
work = recall_work(Recall(top_k=10), bank=bank, model=ModelSpec(None, {"precision": "fp32"}))
table = spark.read.parquet(listings)
table.mapInArrow(ArrowBlocks(work), RESULTS).write.mode("errorifexists").parquet(output)
