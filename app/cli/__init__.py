"""The commands of `./cargoflow`: the local cluster, its stores and the tests. `python -m app.cli --help` lists them."""
