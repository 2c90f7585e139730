"""The HTTP service: embeddings, reranking, recall, decisions and review, from one process that holds models and banks.

What comes in: JSON requests, and the settings of ``ecom-rag serve``. What goes out: JSON, one error shape
(``problems``), metrics, and the pages of ``review``. The layers, from the top:

``http``      endpoints, schemas, middleware: everything that knows of HTTP
``review``    the page on which people look at what the policy sent to review
``engine``    models and pipelines behind batchers; knows nothing of HTTP
``journal``   what was decided and what people said of it: an append-only SQLite file with a hash chain
``banks``     the open banks: what searches see (``slots``), catching up (``watching``), swapping (``opening``)
``writes``    changes of their seeds
``keys``      who may do what, and how often
``settings``  all limits and their defaults
"""
