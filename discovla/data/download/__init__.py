"""Bringing what is public: addresses as data, downloads that go on where they broke off.

`sources` reads config/sources.yaml, `transfer` gets one address into a `.part` file, `part` keeps
it, `check` says whether it is the right file, `unpack` opens archives, `hub` asks Hugging Face, and
`bring` puts them together. requests does the HTTP: it comes with Snakemake, knows proxies and
brings its own certificates, which Python on clusters often lacks.
"""
