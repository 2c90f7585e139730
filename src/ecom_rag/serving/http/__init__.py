"""All that knows of HTTP: what comes in are requests, what goes out are answers in one shape.

From the outside in, each a plain ASGI middleware around the next, then the endpoints:

``protocol``  connections: heads that are too large or too slow, and what is no HTTP
``logs``      an id for each request, one access line each, JSON lines for all else
``errors``    whatever goes wrong becomes one shape, without a text of the request
``guard``     who asks (``sessions`` for browsers), whether they may, and how often
``body``      size, time and form of the body, which is parsed once; and clients that have gone
``schema``    what endpoints declare: strict fields, the answers' JSON, the errors they may give
``bodies``    the requests; ``answers`` and ``listings`` are the answers, for /openapi.json
``redact``    library messages without what a request has said
"""
