"""Answers over HTTP: the same bundles and engines as on the command line, behind limits and checks.

request -> middleware -> route -> service -> pool of engines -> answer -> schema. Needs the extra
`serve`; nothing outside this folder imports its web packages.
"""
