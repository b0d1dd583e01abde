"""The benchmark behind `./cargoflow bench`: what is asked (`scenarios`), of what (`rig`), how it is measured
(`measure`), in which order (`run`), and what comes of it (`report`). `README.md` tells how to read it.
"""
