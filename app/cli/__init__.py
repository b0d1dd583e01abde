"""The commands of `./cargoflow`: the local cluster, its stores, the tests. `--help` lists them."""
