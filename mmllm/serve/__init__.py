"""Answers over HTTP: the same bundles and engines as on the command line, behind limits and checks.

request -> process (socket, uvicorn) -> api (middleware, route) -> engine (service, queues, pool of
models) -> answer -> schema; `guard` holds what api and engine check on the way. Each room imports
only those left of it: guard, engine, api, process; what all need stands beside them. Needs the
extra `serve`; nothing outside this folder imports its web packages.
"""
